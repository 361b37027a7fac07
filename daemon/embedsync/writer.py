"""The writer: collects encoded rows and writes them in few transactions, none of them open while encoding."""

import queue as fifo
import threading
import time
from collections import deque
from collections.abc import Callable

from embedsync import backfill, queue
from embedsync.config import Daemon
from embedsync.db import Connection, translated
from embedsync.progress import Progress
from embedsync.records import Fate, Key, Outcome, Page, Urgency
from embedsync.source import BoundSync
from embedsync.target import TargetWriter

_MAX_ROWS = 4000  # a transaction: longer ones would keep urgent rows waiting


class Writer:
    """One thread and one connection a sync. `put` never blocks; what is put is bounded by the reader's read-ahead."""

    def __init__(
        self, connection: Connection, bound: BoundSync, settings: Daemon, progress: Progress,
        written: Callable[[list[tuple[Page, list[Outcome]]]], None],
    ) -> None:  # fmt: skip
        self._connection = connection
        self._bound = bound
        self._settings = settings
        self._progress = progress
        self._written = written  # told what has been committed
        self._target = TargetWriter(connection, bound)
        self._arrived: fifo.SimpleQueue[tuple[Page, list[Outcome]]] = fifo.SimpleQueue()
        self._open_pages: deque[Page] = deque()  # of the backfill, in key order
        self._lock = threading.Lock()

    def open(self, page: Page) -> None:
        """A backfill page is under way; the checkpoint passes it when all its rows are written."""
        with self._lock:
            self._open_pages.append(page)

    def put(self, page: Page, outcomes: list[Outcome]) -> None:
        """Rows of one batch, ready to be written."""
        self._arrived.put((page, outcomes))

    def run(self, stopping: threading.Event, is_drained: Callable[[int], bool], beat: Callable[[], None]) -> None:
        """Write until `stopping` is set and nothing is left. `is_drained(rows)` tells whether `rows` are all there are."""
        batches: list[tuple[Page, list[Outcome]]] = []
        since = 0.0
        while True:
            beat()
            waited = since + self._settings.commit_every_seconds - time.monotonic() if batches else 5.0
            try:
                batches.append(self._arrived.get(timeout=max(0.0, waited)))
                since = since if len(batches) > 1 else time.monotonic()
                while len(batches) < self._settings.commit_every_batches and not self._arrived.empty():
                    batches.append(self._arrived.get())
            except fifo.Empty:
                pass
            if batches and (stopping.is_set() or self._is_due(batches, since, is_drained)):
                self.flush(batches)
                batches = []
            if stopping.is_set() and not batches and self._arrived.empty():
                return

    def wake(self) -> None:
        """Look at `stopping` now."""
        self._arrived.put((Page(Urgency.LIVE, 0), []))

    def _is_due(self, batches: list[tuple[Page, list[Outcome]]], since: float, is_drained: Callable[[int], bool]) -> bool:
        rows = sum(len(outcomes) for _, outcomes in batches)
        return (
            len(batches) >= self._settings.commit_every_batches
            or rows >= _MAX_ROWS
            or any(page.urgency is Urgency.LIVE for page, _ in batches)
            or time.monotonic() - since >= self._settings.commit_every_seconds
            or is_drained(rows)
        )

    def flush(self, batches: list[tuple[Page, list[Outcome]]]) -> None:
        """One transaction: vectors, exactly the queue entries they answer, and the backfill's checkpoint."""
        outcomes = [outcome for _, part in batches for outcome in part]
        seqs = [seq for outcome in outcomes for seq in outcome.seqs]
        lags: list[float] = []
        with translated("write", f"sync {self._bound.name!r}"), self._connection.transaction():
            writes = [outcome for outcome in outcomes if outcome.fate is not Fate.KEEP]
            if writes:
                self._target.write(writes, self._bound.model.fingerprint)
            if seqs:
                lags = queue.delete(self._connection, self._bound, seqs)
            for page, part in batches:
                page.unwritten -= len(part)
            reached = self._reached()
            if reached:
                backfill.checkpoint(self._connection, self._bound, reached)
        self._progress.wrote(outcomes, lags if any(page.urgency is Urgency.LIVE for page, _ in batches) else [])
        self._written(batches)

    def _reached(self) -> Key | None:
        """The last key of the unbroken run of pages that are written whole."""
        reached = None
        with self._lock:
            while self._open_pages and self._open_pages[0].unwritten == 0:
                reached = self._open_pages.popleft().last_key or reached
        return reached
