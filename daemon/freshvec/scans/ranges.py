"""Ranges: a walk cut into pieces, each walked by one of the workers that share it.

A range is cut where the last one ends, by counting keys in the index, when somebody wants one. So ranges hold
equally many rows whatever the keys are, which statistics of a hundred buckets cannot say of a billion rows,
and no list of them is kept.
"""

from dataclasses import dataclass
from typing import Any

from psycopg import sql

from freshvec.db import Session, queries
from freshvec.records import Key
from freshvec.source.bound import BoundSync

_SQL = queries("scans/ranges")
_MOST_ROWS, _FEWEST_ROWS = 50_000, 1_000
_ALONE = 0  # claims what members have left
_PIECES = 64  # that a small table is cut into, so that all have a part of it


@dataclass(frozen=True)
class Range:
    """Rows after the key `after`, up to the key `upto`; None: from the first, or to the last. `number` is
    None for what a worker alone walks to the end, which is kept in freshvec.sync."""

    number: int | None
    after: Key | None
    upto: Key | None


@dataclass(frozen=True)
class Left:
    """Of a walk: whether some of it is to be had, whether others walk some, and whether it has ended."""

    is_free: bool
    is_others: bool
    is_over: bool


class Ranges:
    """The ranges of one sync's walk. What writes belongs into a transaction of the owner's
    (pipeline/epoch.py); `pid` is the member that claims, None for a worker alone."""

    def __init__(self, connection: Session, bound: BoundSync, pid: int | None) -> None:
        self._connection = connection
        self._bound = bound
        self._pid = pid or _ALONE

    def claim_free(self) -> Range | None:
        """A range that somebody began who is gone."""
        given = {"pid": self._pid}
        row = self._connection.execute(self._bound.compose(_SQL["claim_free"]), given).fetchone()
        return None if row is None else Range(row[0], _key(row[1]), _key(row[2]))

    def cut(self) -> Range | None:
        """The next range; None where all of them are handed out."""
        row = self._connection.execute(self._bound.compose(_SQL["frontier"])).fetchone()
        if row is None or row[1]:
            return None
        after, rows = _key(row[0]), min(_MOST_ROWS, max(_FEWEST_ROWS, (row[2] or 0) // _PIECES))
        upto = self._last_key(after, rows)
        given = {"pid": self._pid, "after": after and list(after), "upto": upto and list(upto)}
        number = self._connection.execute(self._bound.compose(_SQL["cut"]), given).fetchone()
        assert number is not None
        return Range(number[0], after, upto)

    def left(self) -> Left:
        """What is left of the walk."""
        row = self._connection.execute(self._bound.compose(_SQL["left"])).fetchone()
        return Left(*row) if row else Left(False, False, True)

    def _last_key(self, after: Key | None, rows: int) -> Key | None:
        beyond = self._bound.compose("WHERE {beyond_after}") if after else sql.SQL("")
        given: dict[str, Any] = {"others": rows - 1, **(self._bound.key_values(after) if after else {})}
        return self._connection.execute(
            self._bound.compose(_SQL["last_key"], beyond=beyond), given
        ).fetchone()


def reached(connection: Session, bound: BoundSync, number: int, key: Key) -> None:
    """Note, in the caller's transaction, that every row of the range up to `key` is written."""
    connection.execute(bound.compose(_SQL["reached"]), {"number": number, "after": list(key)})


def passed(connection: Session, bound: BoundSync, number: int) -> None:
    """Note that all of its rows are."""
    connection.execute(bound.compose(_SQL["passed"]), {"number": number})


def count(connection: Session, bound: BoundSync, pid: int | None, rows: int, found: int) -> None:
    """As a checkpoint does (backfill.py), with the member that has walked them: all would wait for the sync's
    own row."""
    given = {"rows": rows, "found": found, "pid": pid}
    connection.execute(bound.compose(_SQL["count" if pid is None else "count_of_member"]), given)


def _key(found: list[str] | None) -> Key | None:
    return tuple(found) if found else None
