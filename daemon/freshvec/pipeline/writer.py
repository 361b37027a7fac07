"""The writer: collects encoded rows and writes them in few transactions, none of them open while encoding."""

import threading
import time
from collections.abc import Callable

from freshvec.capture import queue
from freshvec.config import Daemon
from freshvec.db import Connection, translated
from freshvec.pipeline.ledger import Ledger, Ready
from freshvec.pipeline.progress import Progress
from freshvec.records import Fate, Urgency
from freshvec.scans import backfill
from freshvec.source.bound import BoundSync
from freshvec.target.upsert import TargetWriter

_MAX_ROWS = 4000  # per transaction: longer ones would keep urgent rows waiting
_IDLE_SECONDS = 5.0


class Writer:
    """One thread and one connection per sync."""

    def __init__(
        self, connection: Connection, bound: BoundSync, settings: Daemon, progress: Progress, ledger: Ledger
    ) -> None:
        self._connection = connection
        self._bound = bound
        self._settings = settings
        self._progress = progress
        self._ledger = ledger
        self._target = TargetWriter(connection, bound)

    def run(self, stopping: threading.Event, beat: Callable[[], None], written: Callable[[], None]) -> None:
        """Write until `stopping` is set and nothing is left. `beat` is a sign of life, `written` follows a commit."""
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
        with translated("write", f"sync {self._bound.name!r}"), self._connection.transaction():
            writes = [outcome for outcome in outcomes if outcome.fate is not Fate.KEEP]
            if writes:
                self._target.write(writes)
            if entries:
                lags = queue.delete(self._connection, self._bound, entries)
            reached = self._ledger.reached(batches)
            if reached:
                backfill.checkpoint(self._connection, self._bound, reached)
        self._progress.wrote(outcomes, lags if _has_live(batches) else [])
        self._ledger.settle(batches)

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
