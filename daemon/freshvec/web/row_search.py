"""The page's search: the rows of a sync that are nearest to a text."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import SecretStr

from freshvec import logs
from freshvec.db import connect, queries, translated
from freshvec.errors import FreshvecError
from freshvec.records import Vector
from freshvec.source.bound import BoundSync
from freshvec.target.search import Hit, search
from freshvec.web.encode import encode
from freshvec.web.refusals import Refused
from freshvec.worker.keeper import Keeper

_SQL = queries("web/row_search")
_HITS = 10
_MOST_CHARACTERS = 2000
_WIDTH = 300  # characters of a row's text


class RowSearch:
    """One search at a time: without an index on the vectors each reads all of them."""

    def __init__(self, keepers: Callable[[], Sequence[Keeper]], url: SecretStr) -> None:
        self._keepers = keepers
        self._url = url
        self._turn = asyncio.Semaphore(1)

    async def find(self, name: str, text: str) -> dict[str, Any]:
        """The nearest rows, as the page shows them. Raises Refused."""
        text = text.strip()
        if not text or len(text) > _MOST_CHARACTERS:
            raise Refused(400, f"write a text of 1 to {_MOST_CHARACTERS:,} characters")
        keeper = next((keeper for keeper in self._keepers() if keeper.sync.name == name), None)
        if keeper is None:
            raise Refused(404, f"there is no sync {name!r} here")
        pipeline = keeper.pipeline
        if pipeline is None:
            raise Refused(503, f"sync {name!r} is not running in this worker")
        if self._turn.locked():
            raise Refused(429, "another search is under way; try again")
        async with self._turn:
            began = time.monotonic()
            tokens = await asyncio.to_thread(keeper.dispatcher.encoder.tokenize_queries, [text])
            (vector,) = await encode(keeper.dispatcher, tokens)
            hits = await asyncio.to_thread(self._search, pipeline.bound, vector)
        return {
            "key_columns": list(pipeline.bound.key_columns),
            "seconds": round(time.monotonic() - began, 4),
            "truncated": tokens[0].truncated,
            "hits": [{"key": hit.key, "similarity": hit.similarity, "text": hit.text} for hit in hits],
        }

    def _search(self, bound: BoundSync, vector: Vector) -> list[Hit]:
        """Raises Refused with what the database said."""
        try:
            with connect(self._url, "page search") as connection:
                with translated("set up", "the search"):
                    connection.execute(_SQL["bound"])
                return search(connection, bound, vector, _HITS, _WIDTH)
        except FreshvecError as error:
            raise Refused(503, logs.redact(str(error))) from error
