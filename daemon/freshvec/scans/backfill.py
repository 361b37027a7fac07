"""Backfill: a walk over the source by keyset pages, resumable, that encodes whatever is not fresh.

The same walk answers a request to compare the whole table, and proves now and then that everything is fresh:
it compares every row's hash, so it finds whatever no trigger saw.
"""

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg

from freshvec.db import Session, queries
from freshvec.errors import DatabaseError
from freshvec.records import Key, SourceRow
from freshvec.scans.keyset import KeysetPages
from freshvec.scans.ranges import Left, Range, Ranges
from freshvec.scans.replica import Replica
from freshvec.source.bound import BoundSync
from freshvec.source.rows import MOST_CHARACTERS, RowReader, fits, is_of_the_row, source_row

_SQL = queries("scans/backfill")
_FEWEST_ROWS = 16
Discard = Callable[[Session, BoundSync], None]
_NOT_APPLIED = (None, True, False, None, False, False, 0)


@dataclass(frozen=True)
class Page:
    """Rows of one page. `number` is that of their range, `ends` whether it has no row beyond them."""

    rows: list[SourceRow]
    number: int | None = None
    ends: bool = False


class Writing(Protocol):
    """A transaction of the owner's, and the member that it is of: pipeline/epoch.py."""

    @property
    def pid(self) -> int | None: ...

    def transaction(self, connection: Session, *, alone: bool = False) -> AbstractContextManager[object]: ...


class Backfill:
    """The walk of one sync. Where it is lives in the database; this object reads ahead of that.

    A worker alone walks to the end, members of those who share the sync range by range (ranges.py). Writes of
    its own state belong into a transaction of the owner's.
    """

    def __init__(
        self,
        connection: Session,
        bound: BoundSync,
        owner: Writing | None = None,
        replica: Replica | None = None,
    ) -> None:
        self._connection = connection
        self._replica = replica
        self._is_from_replica = False  # the page that is read next
        self._bound = bound
        self._owner = owner
        self._rows = RowReader(connection, bound)
        pid = owner.pid if owner else None
        self._is_shared = pid is not None
        self._ranges = Ranges(connection, bound, pid)
        self._most_rows: int | None = None  # per page, where texts are long
        self.done: bool
        self.proves: bool
        self.proven_seconds_ago: float | None
        self.look()

    def look(self) -> None:
        """How far the walk is, as the database has it. What was read ahead is forgotten.

        For a replica a walk that goes on begins now: who had it before, maybe without a replica, has left
        nothing of the rows that were emptied.
        """
        state = self._connection.execute(self._bound.compose(_SQL["state"])).fetchone()
        after, self.done, self.proves, self.proven_seconds_ago, *cut, self._begun_at = state or _NOT_APPLIED
        if self._replica is not None and not self.done:
            self._begun_at = self._next_fence()
        is_cut, has_ranges = cut
        self._begin_at(tuple(after) if after else None, has_tail=not is_cut, has_ranges=has_ranges)

    def _begin_at(self, after: Key | None, *, has_tail: bool, has_ranges: bool) -> None:
        """A worker alone has all that is in no range; what members have left of some is claimed after
        that."""
        self._may_claim = self._is_shared or has_ranges
        self._is_alone = not self._may_claim
        self._range = None if self._is_shared or not has_tail else Range(None, after, None)
        self._pages = self._pages_of(self._range, after)

    @property
    def exhausted(self) -> bool:
        """Whether every page has been read, though maybe not yet written."""
        return self.done or not (self._may_claim or self._has_page)

    @property
    def is_at_beginning(self) -> bool:
        """Whether a worker alone is at it and has read no page."""
        at_first = self._pages.after is None and not self._pages.is_exhausted
        return self._is_alone and self._range is not None and at_first

    @property
    def _has_page(self) -> bool:
        return self._range is not None and not self._pages.is_exhausted

    @property
    def was_proven(self) -> bool:
        """Whether everything was proven fresh before: only then is what is not fresh a fault."""
        return self.proven_seconds_ago is not None

    @property
    def earliest_fence(self) -> float:
        """Of the pages that are yet to be read; infinity where they are later than all that was read before.

        A page from a replica may be of any moment since the walk began.
        """
        return math.inf if self._replica is None or self.exhausted else self._begun_at

    def draw_fence(self) -> int:
        """The fence of the page that is read next. A replica that does not know of the walk is not asked."""
        fence = self._replica.fence() if self._replica is not None else None
        self._is_from_replica = fence is not None and fence > self._begun_at
        return fence if fence is not None and self._is_from_replica else self._next_fence()

    def _next_fence(self) -> int:
        row = self._connection.execute(_SQL["fence"]).fetchone()
        assert row is not None
        return int(row[0])

    def left(self) -> Left:
        """What is left of the walk, once nothing of it is to be had here. What came free meanwhile is claimed
        next."""
        found = self._ranges.left()
        self._may_claim = found.is_free and not found.is_over
        return found

    def read_page(self, limit: int) -> Page:
        """The next page in key order. An empty page ends the walk, or its range.

        Pages of long texts have fewer rows. A row whose text raises an error has that error.
        """
        if not self._has_page:
            self._claim()
        if self._range is None:
            return Page([])
        rows = self._read_rows(limit)
        upto = self._range.upto
        self._pages.is_exhausted |= bool(rows) and upto is not None and rows[-1].key == upto
        is_range = self._range.number is not None
        return Page(rows, self._range.number, is_range and self._pages.is_exhausted)

    def _claim(self) -> None:
        """Go on with another range, where there is one."""
        self._range = None
        if self._owner is not None and self._may_claim:
            with self._owner.transaction(self._connection):
                self._range = self._ranges.claim_free() or (self._ranges.cut() if self._is_shared else None)
        if self._range is None:
            self._may_claim = False
        else:
            self._pages = self._pages_of(self._range, self._range.after)

    def _read_rows(self, limit: int) -> list[SourceRow]:
        limit = min(limit, self._most_rows or limit)
        before = self._pages.after
        try:
            found = self._read(limit)
        except psycopg.Error as error:
            if not is_of_the_row(error):
                raise
            return self._page_by_key(limit, before)
        rows = [source_row(columns) for columns in found]
        self._pages.is_exhausted = len(rows) < limit and fits(rows, len(rows))
        self._adapt(rows)
        return rows

    def _read(self, limit: int) -> list[tuple[Any, ...]]:
        """The next page's rows, by the primary where the replica fails."""
        given: Any = {"fingerprint": self._bound.model.fingerprint, "most_characters": MOST_CHARACTERS}
        if self._replica is not None and self._is_from_replica:
            try:
                return self._pages.read(limit, on=self._replica.session, **given)
            except (psycopg.Error, DatabaseError) as error:
                if isinstance(error, psycopg.Error) and is_of_the_row(error):
                    raise
                self._replica.rest(error)
        return self._pages.read(limit, **given)

    def _page_by_key(self, limit: int, after: Key | None) -> list[SourceRow]:
        """The same page, its keys first, so that the rows that cannot be read are found among the others."""
        upto = self._range.upto if self._range else None
        pages = KeysetPages(self._connection, self._bound, _SQL["keys"], after=after, upto=upto)
        keys = [tuple(row) for row in pages.read(limit)]
        rows = self._rows.read(keys) if keys else []
        self._pages = self._pages_of(self._range, keys[len(rows) - 1] if rows else after)
        self._pages.is_exhausted = pages.is_exhausted and len(rows) == len(keys)
        return [row for row in rows if row is not None]

    def _adapt(self, rows: list[SourceRow]) -> None:
        """Ask for as many rows as came where texts are long: the server renders the others for nothing."""
        if not fits(rows, len(rows)):
            self._most_rows = max(_FEWEST_ROWS, len(rows))
        elif self._most_rows is not None and sum(len(row.text or "") for row in rows) < MOST_CHARACTERS // 4:
            self._most_rows *= 2

    def restart(
        self, rescans: Iterable[str] = (), *, proves: bool = False, discard: Discard | None = None
    ) -> None:
        """Begin the walk again, and with that answer these requests; with `discard` every queue entry too.

        The caller holds the owner's transaction.
        """
        if discard is not None:  # first: of what it has seen, no reading is later than the walk's beginning
            discard(self._connection, self._bound)
        begun = self._connection.execute(self._bound.compose(_SQL["restart"]), {"proves": proves}).fetchone()
        self._begun_at = begun[0] if begun else 0
        self._connection.execute(self._bound.compose(_SQL["discard_ranges"]))
        self.answer(rescans)
        self.done, self.proves = False, proves
        self._begin_at(None, has_tail=True, has_ranges=False)

    def answer(self, rescans: Iterable[str]) -> None:
        """These requests are answered. The caller holds the owner's transaction."""
        self._connection.execute(self._bound.compose(_SQL["answer_rescans"]), {"ids": list(rescans)})
        if self._replica is not None and not self.done:
            self._begun_at = self._next_fence()  # no page may be of a moment before that

    def finish(self, found: int, vectors: int) -> bool:
        """The last page is written and the orphans are removed: `found` faults more than were noted with the
        pages. False where a range is still open, whose end is not written yet: the walk goes on.

        `vectors` were encoded again and found the same. The caller holds the owner's transaction.
        """
        given = {"found": found, "vectors": vectors}
        if not self._connection.execute(self._bound.compose(_SQL["finish"]), given).rowcount:
            return False
        self.done, self.proves = True, False
        self.proven_seconds_ago = 0.0
        return True

    def _pages_of(self, its: Range | None, after: Key | None) -> KeysetPages:
        """The pages of a range that come after a key."""
        upto = its.upto if its else None
        return KeysetPages(self._connection, self._bound, _SQL["page"], after=after, upto=upto)


def checkpoint(connection: Session, bound: BoundSync, key: Key, rows: int, found: int) -> None:
    """Note, in the caller's transaction, that every row up to `key` is written.

    `rows` more have been passed, `found` of them were not fresh though nothing had told of them.
    """
    given = {"after": list(key), "rows": rows, "found": found}
    connection.execute(bound.compose(_SQL["checkpoint"]), given)
