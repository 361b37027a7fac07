"""Backfill: a walk over the source by keyset pages, resumable, that encodes whatever is not fresh.

The same walk answers a request to compare the whole table, and proves now and then that everything is fresh:
it compares every row's hash, so it finds whatever no trigger saw.
"""

from collections.abc import Iterable

import psycopg

from freshvec.capture import queue
from freshvec.db import Session, queries
from freshvec.records import Key, SourceRow
from freshvec.scans.keyset import KeysetPages
from freshvec.source.bound import BoundSync
from freshvec.source.rows import MOST_CHARACTERS, RowReader, fits, is_of_the_row, source_row

_SQL = queries("scans/backfill")
_FEWEST_ROWS = 16


class Backfill:
    """The walk of one sync. Where it is lives in the database; this object reads ahead of that.

    Writes of its own state belong into a transaction of the owner's (pipeline/epoch.py).
    """

    def __init__(self, connection: Session, bound: BoundSync) -> None:
        self._connection = connection
        self._bound = bound
        self._rows = RowReader(connection, bound)
        state = connection.execute(bound.compose(_SQL["state"])).fetchone()
        after, self.done, self.proves, self.proven_seconds_ago = state or (None, True, False, None)
        self._pages = self._pages_after(tuple(after) if after else None)
        self._most_rows: int | None = None  # per page, where texts are long

    @property
    def exhausted(self) -> bool:
        """Whether every page has been read, though maybe not yet written."""
        return self.done or self._pages.is_exhausted

    @property
    def was_proven(self) -> bool:
        """Whether everything was proven fresh before: only then is what is not fresh a fault."""
        return self.proven_seconds_ago is not None

    def draw_fence(self) -> int:
        """The fence of the page that is read next."""
        row = self._connection.execute(_SQL["fence"]).fetchone()
        assert row is not None
        return int(row[0])

    def read_page(self, limit: int) -> list[SourceRow]:
        """The next page in key order. An empty page ends the walk.

        Pages of long texts have fewer rows. A row whose text raises an error has that error.
        """
        limit = min(limit, self._most_rows or limit)
        before = self._pages.after
        try:
            found = self._pages.read(
                limit, fingerprint=self._bound.model.fingerprint, most_characters=MOST_CHARACTERS
            )
        except psycopg.Error as error:
            if not is_of_the_row(error):
                raise
            return self._page_by_key(limit, before)
        rows = [source_row(columns) for columns in found]
        self._pages.is_exhausted = len(rows) < limit and fits(rows, len(rows))
        self._adapt(rows)
        return rows

    def _page_by_key(self, limit: int, after: Key | None) -> list[SourceRow]:
        """The same page, its keys first, so that the rows that cannot be read are found among the others."""
        pages = KeysetPages(self._connection, self._bound, _SQL["keys"], after=after)
        keys = [tuple(row) for row in pages.read(limit)]
        rows = self._rows.read(keys) if keys else []
        self._pages = self._pages_after(keys[len(rows) - 1] if rows else after)
        self._pages.is_exhausted = pages.is_exhausted and len(rows) == len(keys)
        return [row for row in rows if row is not None]

    def _adapt(self, rows: list[SourceRow]) -> None:
        """Ask for as many rows as came where texts are long: the server renders the others for nothing."""
        if not fits(rows, len(rows)):
            self._most_rows = max(_FEWEST_ROWS, len(rows))
        elif self._most_rows is not None and sum(len(row.text or "") for row in rows) < MOST_CHARACTERS // 4:
            self._most_rows *= 2

    def restart(
        self, rescans: Iterable[str] = (), *, proves: bool = False, discards_queue: bool = False
    ) -> None:
        """Begin the walk again, and with that answer these requests; with `discards_queue` every queue entry
        too.

        The caller holds the owner's transaction.
        """
        self._connection.execute(self._bound.compose(_SQL["restart"]), {"proves": proves})
        self.answer(rescans)
        if discards_queue:
            queue.discard(self._connection, self._bound)
        self.done, self.proves = False, proves
        self._pages = self._pages_after(None)

    def answer(self, rescans: Iterable[str]) -> None:
        """These requests are answered. The caller holds the owner's transaction."""
        self._connection.execute(self._bound.compose(_SQL["answer_rescans"]), {"ids": list(rescans)})

    def finish(self, found: int, vectors: int) -> None:
        """The last page is written and the orphans are removed: `found` faults more than were noted with the
        pages.

        `vectors` were encoded again and found the same. The caller holds the owner's transaction.
        """
        self._connection.execute(self._bound.compose(_SQL["finish"]), {"found": found, "vectors": vectors})
        self.done, self.proves = True, False
        self.proven_seconds_ago = 0.0

    def _pages_after(self, key: Key | None) -> KeysetPages:
        return KeysetPages(self._connection, self._bound, _SQL["page"], after=key)


def checkpoint(connection: Session, bound: BoundSync, key: Key, rows: int, found: int) -> None:
    """Note, in the caller's transaction, that every row up to `key` is written.

    `rows` more have been passed, `found` of them were not fresh though nothing had told of them.
    """
    given = {"after": list(key), "rows": rows, "found": found}
    connection.execute(bound.compose(_SQL["checkpoint"]), given)
