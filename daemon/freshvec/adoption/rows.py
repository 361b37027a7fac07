"""Rows of the source with the vectors that something else made of them."""

from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from freshvec.adoption.origin import Origin
from freshvec.arrays import number_array
from freshvec.db import Session, queries, quoted
from freshvec.records import Key, Vector
from freshvec.source.bound import BoundSync
from freshvec.source.rows import is_of_the_row

_SQL = queries("adoption/rows")
# Why a row's vector is not taken over, as the query says it, and in words.
REFUSALS = {
    "missing": "without a vector",
    "parts": "with vectors of several parts",
    "text": "whose vector is of another text",
    "date": "changed after their vector was made",
    "numbers": "whose vector has another length, or no numbers",
}


@dataclass(frozen=True)
class Row:
    """A row with a text: either its vector, or why that is not to be taken over (of REFUSALS)."""

    key: Key
    content_hash: bytes
    text: str
    refusal: str | None
    vector: Vector | None


class Rows:
    """Reads rows of one sync by key. `untouched`: only such as nothing of ours has been written or noted of;
    that needs the sync to be applied."""

    def __init__(
        self, connection: Session, bound: BoundSync, origin: Origin, *, untouched: bool = False
    ) -> None:
        self._connection = connection
        self._bound = bound
        self._query = bound.compose(_SQL["rows"], **_parts(bound, origin, untouched=untouched))

    def read(self, keys: list[Key], characters: int | None = None) -> list[Row]:
        """The rows of these keys that have a text, with its first `characters`, None for all.

        A row whose text or vector cannot be read is left out; it is found by halving.
        """
        given = self._bound.key_arrays(keys) | {"characters": characters}
        try:
            with self._connection.transaction():
                self._connection.execute(_SQL["allow_hashing"])
                found = self._connection.execute(self._query, given, binary=True).fetchall()
        except psycopg.Error as error:
            if not is_of_the_row(error):
                raise
            middle = len(keys) // 2
            halves = (keys[:middle], keys[middle:]) if middle else ()
            return [row for half in halves for row in self.read(half, characters)]
        return [self._row(columns) for columns in found]

    def _row(self, columns: tuple[Any, ...]) -> Row:
        *key, content_hash, text, refusal, numbers = columns
        vector = number_array(numbers, self._bound.model.dimension) if refusal is None else None
        if refusal is None and vector is None:
            refusal = "numbers"
        return Row(tuple(key), content_hash, text, refusal, vector)


def key_of(bound: BoundSync, origin: Origin) -> sql.Composable:
    """Whether a row `o` of the origin's table is that of a row `d` of the source."""
    return bound.same([quoted("o", name) for name in origin.key], bound.keys("d"))


def untouched_rows(bound: BoundSync) -> sql.Composable:
    """Whether nothing of ours has been written or noted of a row `d` of the source."""
    queued = [quoted("q", f"k{i}") for i, _ in enumerate(bound.key, 1)]
    return bound.compose(_SQL["untouched"], d_is_q=bound.same(bound.keys("d"), queued))


def _parts(bound: BoundSync, origin: Origin, *, untouched: bool) -> dict[str, sql.Composable]:
    return {
        "origin": quoted(*origin.table),
        "o_is_d": key_of(bound, origin),
        "numbers": origin.numbers,
        "part": _or_null(quoted("o", origin.text) if origin.text else None, "text"),
        "made_at": _or_null(quoted("o", origin.made_at) if origin.made_at else None, "timestamptz"),
        "changed_at": _or_null(quoted(origin.changed_at) if origin.changed_at else None, "timestamptz"),
        "blanks": sql.SQL(r"E' \t\r\n\f'"),
        "wanted": untouched_rows(bound) if untouched else sql.SQL("true"),
    }


def _or_null(column: sql.Composable | None, kind: LiteralString) -> sql.Composable:
    return column or sql.SQL("NULL::" + kind)
