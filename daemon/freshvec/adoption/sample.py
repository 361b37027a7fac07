"""Whether vectors that something else made are those of the model and of the rows' texts: some rows, drawn at
random, are encoded and compared."""

import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from psycopg import sql

from freshvec.adoption.origin import Origin
from freshvec.adoption.rows import Row, Rows, key_of, untouched_rows
from freshvec.db import Connection, queries, quoted, translated
from freshvec.encoding.cosine import cosines
from freshvec.encoding.dispatch import Dispatcher
from freshvec.encoding.waiting import encode_all
from freshvec.records import Key, Tokens
from freshvec.source.bound import BoundSync
from freshvec.source.extent import measure
from freshvec.source.rows import without_last_word
from freshvec.target import table

_SQL = queries("adoption/sample")
ROWS = 250  # that are encoded: all of them the same leaves at most 1.2% that are not, with 95% confidence
LEAST_SHARE = (
    0.95  # of them that must be the same: with fewer, it is another model, or the column is not kept
)
_LEAST_COSINE = 0.999  # as vectors are compared everywhere (scans/vectors.py), whatever the precision
_SAME_LENGTH = 0.01  # share by which the vectors of a model that does not normalise may differ in length
_AT_ONCE = 64
_BLOCKS_A_ROW = 2  # looked at: rows of one block were often written together
_COUNTED_BLOCKS = 250  # to tell how many rows have a vector


@dataclass(frozen=True)
class Proof:
    """What a sample of rows with a vector says.

    `compared` texts were encoded, and `disagreeing` are the keys of those whose vector is another one.
    `refused` counts rows that were read and cannot be taken over, by REFUSALS. `is_whole`: every row with a
    vector was looked at. `share` of all rows have a vector. `is_normal`: the model's vectors have length 1.
    """

    compared: int
    disagreeing: tuple[Key, ...]
    refused: Counter[str]
    median_cosine: float
    is_whole: bool
    share: float
    is_normal: bool

    @property
    def agreeing(self) -> int:
        return self.compared - len(self.disagreeing)

    @property
    def is_empty(self) -> bool:
        """Whether there is no vector to be taken over, nor any that cannot."""
        return not self.compared and not self.refused

    @property
    def is_of_the_model(self) -> bool:
        """Whether so many are the same that the others are rows which changed, not another model's."""
        return self.compared > 0 and self.agreeing >= LEAST_SHARE * self.compared

    @property
    def is_proven(self) -> bool:
        """Whether there is no sign of a vector that is not its text's: among those that were compared, or,
        where these are all there are, among the others."""
        return self.is_of_the_model and (not self.disagreeing or self.is_whole)

    @property
    def most_stale(self) -> float:
        """Share of vectors that may be of an older text, with 95% confidence, where all agreed."""
        return 0.0 if self.is_whole else 1 - 0.05 ** (1 / max(self.compared, 1))

    @property
    def usable(self) -> float:
        """Share of all rows that can be taken over."""
        read = self.compared + sum(self.refused.values())
        return self.share * self.compared / read if read else 0.0


@dataclass
class _Found:
    compared: int = 0
    disagreeing: list[Key] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    cosines: list[float] = field(default_factory=list)
    is_normal: bool = True


def prove(
    connection: Connection, bound: BoundSync, origin: Origin, dispatcher: Dispatcher, rows: int = ROWS
) -> Proof:
    """Encode the texts of `rows` random rows, and compare. Changes nothing, and needs nothing to be applied.

    Raises DatabaseError, and what encoding raises.
    """
    found = _Found()
    with translated("compare vectors of", origin.where):
        # More than are compared: some cannot be taken over, and shall not make the sample a small one.
        untouched = _is_made(connection, bound)
        keys = _draw(connection, bound, origin, 4 * rows, untouched=untouched)
        share = _share(connection, bound, origin)
        reader = Rows(connection, bound, origin, untouched=untouched)
        for begin in range(0, len(keys), _AT_ONCE):
            some = keys[begin : begin + _AT_ONCE]
            read = _usable(reader, some, found, rows - found.compared, bound, dispatcher)
            _compare(list(read), found, bound, dispatcher)
            if found.compared >= rows:
                break
    is_whole = len(keys) < 4 * rows and found.compared < rows
    median = statistics.median(found.cosines) if found.cosines else 0.0
    return Proof(
        found.compared,
        tuple(found.disagreeing),
        found.refused,
        median,
        is_whole,
        share,
        found.is_normal,
    )


def _is_made(connection: Connection, bound: BoundSync) -> bool:
    """Whether the sync has its target and its queue: then rows may have been taken over, or edited since, and
    say nothing of the others."""
    names = (bound.target_name, ("freshvec", f"queue_{bound.name}"))
    return all(table.describe(connection, name) is not None for name in names)


def _draw(
    connection: Connection, bound: BoundSync, origin: Origin, rows: int, *, untouched: bool
) -> list[Key]:
    """Keys of rows with a vector, in no order; all of them where there are not so many."""
    wanted = untouched_rows(bound) if untouched else sql.SQL("true")
    query = bound.compose(_SQL["draw"], wanted=wanted, **_parts(bound, origin))
    percent = _percent(connection, bound, _BLOCKS_A_ROW * rows)
    while True:
        found = connection.execute(query, {"percent": percent, "rows": rows}).fetchall()
        if len(found) >= rows or percent == 100.0:
            return found
        percent = min(100.0, 4 * percent)


def _share(connection: Connection, bound: BoundSync, origin: Origin) -> float:
    given = {"percent": _percent(connection, bound, _COUNTED_BLOCKS)}
    query = bound.compose(_SQL["share"], **_parts(bound, origin))
    count, having = connection.execute(query, given).fetchone() or (0, 0)
    return having / count if count else 0.0


def _percent(connection: Connection, bound: BoundSync, blocks: int) -> float:
    """Share of the table's pages that are so many."""
    pages = measure(connection, bound.source_oid, bound.source_name).pages
    return min(100.0, 100.0 * blocks / max(1, pages))


def _parts(bound: BoundSync, origin: Origin) -> dict[str, sql.Composable]:
    return {
        "origin": quoted(*origin.table),
        "o_is_d": key_of(bound, origin),
        "column": quoted(origin.column),
    }


def _usable(
    reader: Rows, keys: list[Key], found: _Found, most: int, bound: BoundSync, dispatcher: Dispatcher
) -> Iterator[tuple[Row, Tokens]]:
    """The rows to compare, at most so many, each with the tokens of its text; the others are counted."""
    limit, encoder = bound.max_characters, dispatcher.encoder
    usable: list[Row] = []
    for row in reader.read(keys, limit):
        if len(usable) == most:
            break
        if row.refusal is not None:
            found.refused[row.refusal] += 1
        else:
            usable.append(row)
    tokens = encoder.tokenize([without_last_word(row.text, limit) for row in usable])
    for row, its in zip(usable, tokens, strict=True):
        if len(row.text) < limit or its.truncated:
            yield row, its
        else:  # its beginning does not fill the model
            for whole in reader.read([row.key]):
                if whole.refusal is None:
                    yield whole, encoder.tokenize([whole.text])[0]


def _compare(read: list[tuple[Row, Tokens]], found: _Found, bound: BoundSync, dispatcher: Dispatcher) -> None:
    if not read:
        return
    again = np.stack([bound.model.fit(one) for one in encode_all(dispatcher, [its for _, its in read])])
    stored = np.stack([row.vector for row, _ in read if row.vector is not None])
    lengths, others = np.linalg.norm(again, axis=1), np.linalg.norm(stored, axis=1)
    found.is_normal = found.is_normal and bool((abs(lengths - 1) < _SAME_LENGTH).all())
    cosine = cosines(stored, again)
    same = cosine > _LEAST_COSINE
    if not found.is_normal:
        same &= abs(others / lengths - 1) < _SAME_LENGTH
    found.compared += len(read)
    found.cosines += cosine.tolist()
    found.disagreeing += [row.key for (row, _), is_same in zip(read, same, strict=True) if not is_same]
