"""The writer: collects encoded rows and writes them in few transactions, none of them open while encoding."""

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg.errors import DeadlockDetected, UniqueViolation

from freshvec.capture import queue
from freshvec.config import Daemon
from freshvec.db import Session, translated
from freshvec.errors import DatabaseError
from freshvec.pipeline.amid_walk import as_member, is_outdated
from freshvec.pipeline.epoch import Epoch, Walk
from freshvec.pipeline.ledger import Checkpoint, Ledger, Ready
from freshvec.pipeline.pace import Pace
from freshvec.pipeline.progress import Progress
from freshvec.pipeline.rests import Rest
from freshvec.records import Fate, Key, Outcome, Urgency
from freshvec.scans import backfill, ranges
from freshvec.source.bound import BoundSync
from freshvec.target import layout
from freshvec.target.fill import is_filled
from freshvec.target.upsert import removes

_IDLE_SECONDS = 5.0
_ATTEMPTS = 5  # at a transaction that another one stands in the way of
_MOST_REFUSALS = 3  # of fills in a row; then the rows of this walk are not expected to be new
_MOST_TOMBSTONES = 10_000  # that are remembered while a table is walked
_FAIR_TURN = 8  # transactions of live rows after which others get one, however many more wait


class Writer:
    """Writes what is ready of one sync, a transaction at a step: live rows first, and never for long."""

    def __init__(
        self,
        connection: Session,
        bound: BoundSync,
        settings: Daemon,
        progress: Progress,
        ledger: Ledger,
        epoch: Epoch,
    ) -> None:
        self._connection = connection
        self._bound = bound
        self._settings = settings
        self._progress = progress
        self._ledger = ledger
        self._epoch = epoch
        self._pace = Pace(is_guest=bound.sync.target.column is not None)
        self._live: deque[Ready] = deque()
        self._others: deque[Ready] = deque()
        self._since = 0.0  # when the oldest of the others became ready
        self._turn = 0
        self.target = layout.writer(connection, bound)
        self.target.member = epoch.pid
        self._refusals = 0  # of fills in a row, by rows that were there
        self._tombstones: list[Outcome] = []  # written, and needed while an older reading is under way
        self._walk: Walk | None = None  # as the last transaction found it

    def step(self, *, hurry: bool = False) -> float:
        """Write what is due, as much as fits one transaction; gives the seconds until more is due.

        With `hurry` everything is.
        """
        self._collect()
        chosen = self._choose(hurry)
        if chosen is not None:
            with self._progress.stages.timed("write"):
                self.flush(self._portioned(chosen))
            return 0.0
        if self._others:
            return max(0.001, self._since + self._settings.commit_every_seconds - time.monotonic())
        if self._tombstones and self._is_walked:  # others may have ended that by now
            with self.transaction() as self._walk:
                pass
        self._clear_tombstones()  # the page that was read ahead may have been empty
        return _IDLE_SECONDS if self._tombstones else math.inf

    def _collect(self) -> None:
        for ready in self._ledger.take():
            if ready.portion.urgency is Urgency.LIVE:
                self._live.append(ready)
            else:
                self._since = self._since if self._others else time.monotonic()
                self._others.append(ready)

    def _choose(self, hurry: bool) -> deque[Ready] | None:
        """Whose turn it is; None when nothing is due."""
        if self._live and not (self._others and self._turn >= _FAIR_TURN):
            self._turn += 1
            return self._live
        if self._others and (hurry or self._turn >= _FAIR_TURN or self._is_due()):
            self._turn = 0
            return self._others
        return None

    def _is_due(self) -> bool:
        rows = sum(len(ready.outcomes) for ready in self._others)
        return (
            len(self._others) >= self._settings.commit_every_batches
            or rows >= self._pace.rows
            or time.monotonic() - self._since >= self._settings.commit_every_seconds
            or rows == self._ledger.in_flight()
        )

    def _portioned(self, waiting: deque[Ready]) -> list[Ready]:
        """The oldest rows that wait, as many as one transaction should write; the others go on waiting."""
        rows, vectors = self._pace.most, self._pace.rows
        portioned = []
        while waiting and rows > 0 and vectors > 0:
            ready = waiting.popleft()
            fitting = _fitting(ready.outcomes, rows, vectors)
            if fitting < len(ready.outcomes):
                waiting.appendleft(Ready(ready.portion, ready.outcomes[fitting:]))
                ready = Ready(ready.portion, ready.outcomes[:fitting])
            portioned.append(ready)
            rows -= fitting
            vectors -= _vectors(ready.outcomes)
        return portioned

    def flush(self, batches: list[Ready]) -> None:
        """One transaction: vectors, exactly the queue entries they answer, and the backfill's checkpoint.

        Two members of those who share a sync may write one row, each in its own order, so one of them may
        have to begin again.
        """
        fills = self._refusals < _MOST_REFUSALS and self.target.can_fill
        for attempt in range(_ATTEMPTS):
            try:
                self._flush(batches, fills=fills)
                self._refusals = 0 if fills else self._refusals
                return
            except DatabaseError as error:
                if fills and isinstance(error.__cause__, UniqueViolation):
                    fills = False  # a row was there already
                    self._refusals += 1
                elif not isinstance(error.__cause__, DeadlockDetected) or attempt == _ATTEMPTS - 1:
                    raise

    def _flush(self, batches: list[Ready], *, fills: bool) -> None:
        written, lags = batches, list[float]()
        began = time.monotonic()
        is_member = self._epoch.pid is not None  # whose walk ends with a look for what this may leave
        with self.transaction(alone=not is_member and removes(_outcomes(batches))) as walk:
            if is_member:
                written = [ready for ready in batches if not is_outdated(ready, walk)]
                written, queued = as_member(written, walk)
                if queued:
                    queue.append(self._connection, self._bound, queued)
            writes = self._filled(written) if fills else _outcomes(written)
            writes = [outcome for outcome in writes if outcome.fate is not Fate.KEEP]
            again = self.target.write(writes) if writes else []
            if again:
                queue.append(self._connection, self._bound, again, bulk=False)
            held_back = self.target.held_back if writes else set()
            rests = self._rests(written, held_back) if held_back else []
            entries = [entry for ready in written for entry in ready.entries(held_back)]
            if entries:
                lags = queue.delete(self._connection, self._bound, entries)
            for reached in self._ledger.reached(written):
                self._note(reached)
        self._pace.took(_vectors(_outcomes(written)), time.monotonic() - began)
        self._walk = walk
        self._tombstones += [outcome for outcome in writes if outcome.is_tombstone]
        done = [outcome for outcome in _outcomes(written) if outcome.key not in held_back]
        self._progress.wrote(done, lags if _has_live(batches) else [])
        self._ledger.rests.forgive({outcome.key for outcome in done})
        for rest in rests:
            self._ledger.rests.begin(rest)
        self._ledger.settle(batches, missed=len(lags) < len(entries) or len(written) < len(batches))
        self._clear_tombstones()

    def _filled(self, batches: list[Ready]) -> list[Outcome]:
        """Write what the target has nothing of; gives what is to be written otherwise."""
        filled, others = list[Outcome](), list[Outcome]()
        for ready in batches:
            for outcome in ready.outcomes:
                (filled if ready.portion.fills and is_filled(outcome) else others).append(outcome)
        if filled:
            self.target.fill(filled)
        return others

    def _note(self, reached: Checkpoint) -> None:
        """How far the walk is, in the owner's transaction."""
        counts = (reached.rows, reached.not_fresh)
        if reached.number is None:
            assert reached.key is not None
            backfill.checkpoint(self._connection, self._bound, reached.key, *counts)
            return
        if reached.ends:
            ranges.passed(self._connection, self._bound, reached.number)
        elif reached.key is not None:
            ranges.reached(self._connection, self._bound, reached.number, reached.key)
        ranges.count(self._connection, self._bound, self._epoch.pid, *counts)

    def _rests(self, batches: list[Ready], held_back: set[Key]) -> list[Rest]:
        """What the queue keeps for rows that somebody else has: their entries, of a page's rows new ones."""
        rests: list[Rest] = []
        lone: list[Key] = []
        for ready in batches:
            for key in {outcome.key for outcome in ready.outcomes} & held_back:
                if entries := ready.portion.entries.get(key):
                    rests.append(Rest(ready.portion.urgency, key, entries))
                else:
                    lone.append(key)
        made = queue.append(self._connection, self._bound, lone) if lone else []
        return rests + [Rest(Urgency.BULK, key, (entry,)) for key, entry in zip(lone, made, strict=True)]

    @property
    def _is_walked(self) -> bool:
        """Whether pages of others may be under way, as far as the last transaction knows."""
        return self._epoch.pid is not None and (self._walk is None or self._walk.is_under_way)

    def _clear_tombstones(self) -> None:
        """Take away those that no older reading can overtake any more.

        A walk may need them to its end: among members its pages may be anybody's, and those from a replica
        show what was long ago. What is more than can be remembered is found by the next walk.
        """
        if not self._is_walked:
            oldest = self._ledger.oldest_fence()
            over = [outcome for outcome in self._tombstones if outcome.fence < oldest]
            if over:
                with self.transaction() as self._walk:
                    if self._is_walked:
                        return
                    self.target.clear_tombstones(over)
                self._tombstones = [outcome for outcome in self._tombstones if outcome.fence >= oldest]
        if self._walk is None or self._walk.is_under_way:
            self._tombstones = self._tombstones[-_MOST_TOMBSTONES:]

    @contextmanager
    def transaction(self, *, alone: bool = False) -> Iterator[Walk]:
        operation = translated("write", f"sync {self._bound.name!r}")
        with operation, self._epoch.transaction(self._connection, alone=alone) as walk:
            yield walk


def _outcomes(batches: list[Ready]) -> list[Outcome]:
    return [outcome for ready in batches for outcome in ready.outcomes]


def _has_live(batches: list[Ready]) -> bool:
    return any(ready.portion.urgency is Urgency.LIVE for ready in batches)


def _vectors(outcomes: list[Outcome]) -> int:
    """What makes a transaction long: an index of the target is searched for each."""
    return sum(outcome.vectors for outcome in outcomes)


def _fitting(outcomes: list[Outcome], rows: int, vectors: int) -> int:
    """How many of the first outcomes hold at most so many rows and vectors; one, where that holds more."""
    for place, outcome in enumerate(outcomes[:rows]):
        vectors -= outcome.vectors
        if vectors < 0:
            return max(1, place)
    return min(len(outcomes), rows)
