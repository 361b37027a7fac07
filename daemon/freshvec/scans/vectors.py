"""Vectors compared: rows drawn from the target at random, whose texts are encoded again.

Hashes tell whether a vector was made of the row's text; only encoding again tells whether it was made
rightly.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import psycopg
from psycopg import sql

from freshvec.db import Session, queries
from freshvec.records import Encoder, Fate, Key, Outcome, Passage, Tokens, Vector
from freshvec.source.bound import BoundSync
from freshvec.source.rows import is_of_the_row, without_last_word

_SQL = queries("scans/vectors")
_AT_ONCE = 64  # rows
_BLOCKS_A_ROW = 2  # looked at: rows of one block were often written together
# Cosine with what is stored: int8 rounds activations by what else is in the batch.
_LEAST = {"int8": 0.98}
_LEAST_OTHERWISE = 0.999


@dataclass(frozen=True)
class Stored:
    """A row whose hash says that its vector is of its text."""

    key: Key
    content_hash: bytes
    text: str
    vector: Vector
    passages: tuple[Passage, ...] = ()  # all of the row's, where its text is cut: `text` is one of them
    place: int = 0  # which

    @property
    def text_hash(self) -> bytes:
        """The hash of the text that was encoded."""
        return self.passages[self.place].content_hash if self.passages else self.content_hash

    def corrected(self, fence: int, again: Vector) -> Outcome:
        """The row with the vector that was found to be right."""
        if not self.passages:
            return Outcome(self.key, fence, Fate.STORE, again, self.content_hash)
        passages = list(self.passages)
        passages[self.place] = replace(passages[self.place], embedding=again)
        return Outcome(self.key, fence, Fate.STORE, None, self.content_hash, None, tuple(passages))

    def agrees(self, again: Vector, precision: str | None) -> bool:
        """Whether the stored vector is the one that the text has when it is encoded again, as far as it is
        kept."""
        again = again[: len(self.vector)]
        size = float(np.linalg.norm(self.vector)) * float(np.linalg.norm(again))
        return bool(float(self.vector @ again) > _LEAST.get(precision or "", _LEAST_OTHERWISE) * size > 0)


class VectorSample:
    """Random rows of one sync's target, some at a time; no more than their keys is kept."""

    def __init__(self, connection: Session, bound: BoundSync, rows: int) -> None:
        self._connection = connection
        self._bound = bound
        self._model = {"fingerprint": bound.model.fingerprint}
        self._keys = self._draw(rows) if rows else []

    def _draw(self, rows: int) -> list[Key]:
        target = {"target": sql.Identifier(*self._bound.target_name).as_string()}
        (blocks,) = self._connection.execute(_SQL["blocks"], target).fetchone() or (0,)
        percent = min(100.0, 100.0 * _BLOCKS_A_ROW * rows / max(1, blocks or 0))
        while True:
            given = {"percent": percent, "rows": rows, **self._model}
            found = self._connection.execute(self._bound.compose(_SQL["sample"]), given).fetchall()
            if len(found) >= rows or percent == 100.0:
                return found
            percent = min(100.0, 4 * percent)  # many blocks are empty

    def next(self, encoder: Encoder) -> tuple[int, list[Stored], list[Tokens]] | None:
        """Some more rows: the fence drawn before they were read, and the tokens of each. None at the end."""
        if not self._keys:
            return None
        keys, self._keys = self._keys[:_AT_ONCE], self._keys[_AT_ONCE:]
        row = self._connection.execute(_SQL["fence"]).fetchone()
        assert row is not None
        limit = self._bound.max_characters
        rows = self._read(keys, limit)
        stored: list[Stored] = []
        tokens: list[Tokens] = []
        found = encoder.tokenize([without_last_word(one.text, limit) for one in rows])
        for one, its in zip(rows, found, strict=True):
            if len(one.text) < limit or its.truncated:
                stored.append(one)
                tokens.append(its)
            else:  # its beginning does not fill the model
                for whole in self._read([one.key], None):
                    stored.append(whole)
                    tokens += encoder.tokenize([whole.text])
        return row[0], stored, tokens

    def _read(self, keys: list[Key], characters: int | None) -> list[Stored]:
        given = self._bound.key_arrays(keys) | self._model | {"characters": characters}
        try:
            query = _SQL["stored" if self._bound.sync.chunk is None else "stored_passages"]
            rows = self._connection.execute(self._bound.compose(query), given, binary=True).fetchall()
        except psycopg.Error as error:
            if not is_of_the_row(error):
                raise
            middle = len(keys) // 2  # a row whose text cannot be read is not of this sample any more
            halves = (keys[:middle], keys[middle:]) if middle else ()
            return [one for half in halves for one in self._read(half, characters)]
        return [_stored(row, len(self._bound.key)) for row in rows]


def _stored(row: tuple[Any, ...], key_columns: int) -> Stored:
    """Columns `…key texts, hash, …, text, vector` as a value."""
    key, content_hash, *passages, text, vector = (row[:key_columns], *row[key_columns:])
    vector = np.asarray(vector, np.float32)
    if not passages:
        return Stored(key, content_hash, text, vector)
    begins, ends, hashes, place = passages
    cut = tuple(Passage(*each) for each in zip(begins, ends, hashes, strict=True))
    return Stored(key, content_hash, text, vector, cut, place - 1)
