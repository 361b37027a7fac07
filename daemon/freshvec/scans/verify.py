"""Verify: compare every row's hash with its embedding's, in short reads, and say what is not fresh."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from freshvec.capture import queue
from freshvec.db import WRITE_LOCK_CLASS, Connection, queries, translated
from freshvec.encoding.dispatch import Dispatcher
from freshvec.encoding.waiting import encode_all
from freshvec.records import Key, SourceRow
from freshvec.scans.faults import faults
from freshvec.scans.vectors import Stored, VectorSample
from freshvec.source.bound import BoundSync
from freshvec.source.rows import RowReader, is_of_the_row
from freshvec.target.trust import Trust

_SQL = queries("scans/verify")
_RANGE = 5000  # source rows
_MOST = 2 * _RANGE  # that can be wrong in a range, if the target has no more rows in it than the source
_EXAMPLES = 5
WRONG_VECTOR = "wrong vector"


@dataclass
class Report:
    """What was found. `problems` counts by kind: missing, different, other model, failed, orphaned, wrong
    vector."""

    sync: str
    rows: int = 0
    vectors: int = 0  # that were encoded again
    problems: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Key]] = field(default_factory=dict)

    @property
    def is_fresh(self) -> bool:
        return not self.problems

    def note(self, problem: str, key: Key) -> None:
        self.problems[problem] += 1
        if len(self.examples.setdefault(problem, [])) < _EXAMPLES:
            self.examples[problem].append(key)


def verify(connection: Connection, bound: BoundSync, *, repair: bool = False) -> Report:
    """Walk source and target by key. With `repair`, whatever is wrong is queued for the worker.

    A row that waits in the queue is not wrong: it is about to be read.
    """
    report = Report(bound.name)
    with translated("verify", f"sync {bound.name!r}"):
        ranges = _Ranges(connection, bound)
        after: Key | None = None
        while True:
            last = ranges.last("last", after)
            wrong, is_whole = ranges.wrong(after, last), last is not None
            if len(wrong) == _MOST:  # there may be more
                last = ranges.last("last_of_both", after)
                wrong, is_whole = ranges.wrong(after, last), False
            report.rows += _RANGE if is_whole else ranges.count(after, last)
            still = faults(connection, bound, list(wrong), failed=True)
            for key in still:
                report.note(wrong[key], key)
            if repair and still:
                queue.append(connection, bound, still)
            if last is None:
                break
            after = last
        if repair and report.problems:
            connection.execute(bound.compose(_SQL["ring"]))
    return report


def verify_vectors(
    connection: Connection,
    bound: BoundSync,
    dispatcher: Dispatcher,
    report: Report,
    rows: int,
    *,
    precision: str | None = None,
    repair: bool = False,
) -> None:
    """Encode `rows` random rows' texts again and compare the vectors. With `repair`, wrong ones are made
    anew."""
    with translated("verify", f"vectors of sync {bound.name!r}"):
        sample = VectorSample(connection, bound, rows)
        while (read := sample.next(dispatcher.encoder)) is not None:
            _, stored, tokens = read
            vectors = encode_all(dispatcher, tokens)
            report.vectors += len(vectors)
            compared = zip(stored, vectors, strict=True)
            wrong = [row for row, again in compared if not row.agrees(again, precision)]
            for row in wrong:
                report.note(WRONG_VECTOR, row.key)
            if repair and wrong:
                _make_known(connection, bound, wrong)


def _make_known(connection: Connection, bound: BoundSync, wrong: Sequence[Stored]) -> None:
    """Queue these rows, without the hash by which they would be found unchanged."""
    keys = [row.key for row in wrong]
    hashes = {"hashes": [row.content_hash for row in wrong]}
    with connection.transaction():
        connection.execute(bound.compose(_SQL["lock"]), {"class": WRITE_LOCK_CLASS})
        Trust(bound).hold(connection)
        connection.execute(bound.compose(_SQL["make_known"]), bound.key_arrays(keys) | hashes)
        if bound.sync.chunk is not None:
            connection.execute(bound.compose(_SQL["make_passages_known"]), bound.key_arrays(keys))
        queue.append(connection, bound, keys)
        connection.execute(bound.compose(_SQL["ring"]))


class _Ranges:
    """The rows of source and target after one key and up to another, either of which may be None."""

    def __init__(self, connection: Connection, bound: BoundSync) -> None:
        self._connection = connection
        self._bound = bound
        self._composed: dict[tuple[str, bool, bool], sql.Composed] = {}

    def last(self, name: str, after: Key | None) -> Key | None:
        """The last key of the range that begins after a key; None where it is the last range."""
        query, given = self._query(name, after, None)
        return self._connection.execute(query, given, binary=True).fetchone()

    def count(self, after: Key | None, last: Key | None) -> int:
        (rows,) = self._connection.execute(*self._query("count", after, last)).fetchone() or (0,)
        return int(rows)

    def wrong(self, after: Key | None, last: Key | None) -> dict[Key, str]:
        """Keys of rows that are not as they should be, each with what is wrong."""
        query, given = self._query("range", after, last)
        try:
            found = self._connection.execute(query, given, binary=True).fetchall()
        except psycopg.Error as error:
            if not is_of_the_row(error):
                raise
            return self._wrong_by_key(after, last)
        return {row[:-1]: row[-1] for row in found}

    def _wrong_by_key(self, after: Key | None, last: Key | None) -> dict[Key, str]:
        """The same where a row's text cannot be read: it is found among the others."""
        query, given = self._query("keys", after, last)
        found = self._connection.execute(query, given, binary=True).fetchall()
        wrong = {tuple(key): "orphaned" for *key, is_there, _ in found if not is_there}
        held = {tuple(key): is_held for *key, is_there, is_held in found if is_there}
        keys = list(held)
        reader, rows = RowReader(self._connection, self._bound), list[SourceRow | None]()
        while len(rows) < len(keys):  # an answer may be of the first keys alone
            rows += reader.read(keys[len(rows) :])
        for key, row in zip(keys, rows, strict=True):
            if row is not None and not row.unchanged:
                wrong[key] = "failed" if row.error else "different" if held[key] else "missing"
        return wrong

    def _query(
        self, name: str, after: Key | None, last: Key | None
    ) -> tuple[sql.Composed, dict[str, object]]:
        """A query about a range, and its parameters. Composing one takes longer than to read many rows."""
        shape = name, after is not None, last is not None
        if shape not in self._composed:
            conditions = ["{beyond_after}"] * (after is not None) + ["{up_to_last}"] * (last is not None)
            where = self._bound.compose("WHERE " + " AND ".join(conditions)) if conditions else sql.SQL("")
            self._composed[shape] = self._bound.compose(_SQL[name], range=where)
        given: dict[str, object] = {
            "fingerprint": self._bound.model.fingerprint,
            "most": _MOST,
            "limit": _RANGE,
        }
        given |= (self._bound.key_values(after) if after else {}) | (
            self._bound.last_values(last) if last else {}
        )
        return self._composed[shape], given
