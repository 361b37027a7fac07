"""The writer: collects encoded rows and writes them in few transactions, none of them open while encoding."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from freshvec.capture import queue
from freshvec.config import Daemon
from freshvec.db import Connection, translated
from freshvec.pipeline.epoch import Epoch
from freshvec.pipeline.ledger import Ledger, Ready
from freshvec.pipeline.progress import Progress
from freshvec.records import Fate, Outcome, Urgency
from freshvec.scans import backfill
from freshvec.source.bound import BoundSync
from freshvec.target.upsert import TargetWriter, removes

_MAX_ROWS = 4000  # per transaction: longer ones would keep urgent rows waiting
_IDLE_SECONDS = 5.0


class Writer:
    """One thread and one connection per sync."""

    def __init__(
        self,
        connection: Connection,
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
        self.target = TargetWriter(connection, bound)
        self._tombstones: list[Outcome] = []  # written, and needed while an older reading is under way

    def run(self, stopping: threading.Event, beat: Callable[[], None], written: Callable[[], None]) -> None:
        """Write until `stopping` is set and nothing is left. `beat` is a sign of life, `written` follows a
        commit."""
        batches: list[Ready] = []
        since = 0.0
        while True:
            beat()
            due = since + self._settings.commit_every_seconds - time.monotonic() if batches else _IDLE_SECONDS
            ready = self._ledger.take(due)
            if ready is not None:
                since = since if batches else time.monotonic()
                batches.append(ready)
                batches += self._more(self._settings.commit_every_batches - len(batches))
            elif not batches:
                self._clear_tombstones()  # the page that was read ahead may have been empty
            if batches and (stopping.is_set() or self._is_due(batches, since)):
                self.flush(batches)
                batches = []
                written()
            if stopping.is_set() and not batches and not self._ledger.has_ready:
                return

    def flush(self, batches: list[Ready]) -> None:
        """One transaction: vectors, exactly the queue entries they answer, and the backfill's checkpoint."""
        outcomes = [outcome for ready in batches for outcome in ready.outcomes]
        entries = [entry for ready in batches for entry in ready.entries()]
        lags: list[float] = []
        writes = [outcome for outcome in outcomes if outcome.fate is not Fate.KEEP]
        with self.transaction(alone=removes(writes)):
            again = self.target.write(writes) if writes else []
            if again:
                queue.append(self._connection, self._bound, again, bulk=False)
            if entries:
                lags = queue.delete(self._connection, self._bound, entries)
            reached = self._ledger.reached(batches)
            if reached:
                backfill.checkpoint(
                    self._connection, self._bound, reached.key, reached.rows, reached.not_fresh
                )
        self._tombstones += [outcome for outcome in writes if outcome.is_tombstone]
        self._progress.wrote(outcomes, lags if _has_live(batches) else [])
        self._ledger.settle(batches)
        self._clear_tombstones()

    def _clear_tombstones(self) -> None:
        """Take away those that no older reading can overtake any more."""
        oldest = self._ledger.oldest_fence()
        over = [outcome for outcome in self._tombstones if outcome.fence < oldest]
        if over:
            with self.transaction():
                self.target.clear_tombstones(over)
            self._tombstones = [outcome for outcome in self._tombstones if outcome.fence >= oldest]

    @contextmanager
    def transaction(self, *, alone: bool = False) -> Iterator[None]:
        operation = translated("write", f"sync {self._bound.name!r}")
        with operation, self._epoch.transaction(self._connection, alone=alone):
            yield

    def _more(self, most: int) -> list[Ready]:
        """What is ready beside, without waiting for it."""
        found: list[Ready] = []
        while len(found) < most and (ready := self._ledger.take(0.0)) is not None:
            found.append(ready)
        return found

    def _is_due(self, batches: list[Ready], since: float) -> bool:
        rows = sum(len(ready.outcomes) for ready in batches)
        return (
            len(batches) >= self._settings.commit_every_batches
            or rows >= _MAX_ROWS
            or _has_live(batches)
            or time.monotonic() - since >= self._settings.commit_every_seconds
            or rows == self._ledger.in_flight()
        )


def _has_live(batches: list[Ready]) -> bool:
    return any(ready.portion.urgency is Urgency.LIVE for ready in batches)
