"""The pipeline of one sync: reader and writer side by side, the encoder between them.

It is crash-only: all state is in the database, so after any error the whole pipeline is thrown away and
another one begins from what the tables say.
"""

import threading
import time
from collections.abc import Callable

from freshvec.config import Settings
from freshvec.db import Connection, connect
from freshvec.encoding.dispatch import Dispatcher
from freshvec.pipeline.epoch import take
from freshvec.pipeline.ledger import Ledger
from freshvec.pipeline.pressure import Pressure
from freshvec.pipeline.progress import Progress
from freshvec.pipeline.reader import Reader
from freshvec.pipeline.writer import Writer
from freshvec.records import Urgency
from freshvec.source.bound import BoundSync

_IDLE_SECONDS = 10.0  # a waiting thread looks up this often, which is also its sign of life


class Pipeline:
    """Keeps one sync fresh from `start` until `stop` or a failure."""

    def __init__(
        self,
        bound: BoundSync,
        dispatcher: Dispatcher,
        settings: Settings,
        progress: Progress,
        pressure: Pressure,
        *,
        walk_again: bool = False,
    ) -> None:
        self.bound = bound
        self.progress = progress
        self.failure: Exception | None = None
        self.fresh = threading.Event()  # set while nothing is left to do
        self._wake = threading.Event()
        self._draining = threading.Event()  # read nothing more
        self._stopping = threading.Event()  # write what there is and end
        self._beats = {"reader": time.monotonic(), "writer": time.monotonic()}
        self._connections: list[Connection] = []
        try:
            reading, writing = (
                self._connect(settings, f"{role} {bound.name}") for role in ("reader", "writer")
            )
            self.ledger = Ledger()
            epoch = take(writing, bound.name, bound.generation)
            self.writer = Writer(writing, bound, settings.daemon, progress, self.ledger, epoch)
            self.reader = Reader(
                reading, bound, dispatcher, settings.daemon, progress, self.ledger, epoch, pressure
            )
            if walk_again:
                self.reader.restart_backfill()
            else:
                self.reader.prove_soon(settings.daemon.prove_every_hours * 3600)
        except BaseException:
            self._close()
            raise
        self._threads = [
            threading.Thread(target=self._guarded, args=(run,), name=f"{name} {bound.name}", daemon=True)
            for name, run in (("reader", self._read), ("writer", self._write))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Something may have changed: look now."""
        self._wake.set()
        self.fresh.clear()

    @property
    def is_walking(self) -> bool:
        """Whether the whole table is being compared."""
        return self.reader.is_walking

    @property
    def phase(self) -> str:
        """What is being done, in the words of `freshvec.progress`."""
        return self.reader.phase

    def beat(self) -> float:
        """Seconds since the slower of the two threads gave a sign of life."""
        return time.monotonic() - min(self._beats.values())

    def stop(self, drain_seconds: float) -> None:
        """Read nothing more, let live changes that were read be written, and end within the bound.

        What is not written by then is still in the queue, or beyond the backfill's checkpoint.
        """
        self._draining.set()
        self._wake.set()
        deadline = time.monotonic() + drain_seconds
        while self.failure is None and self.ledger.in_flight(Urgency.LIVE) and time.monotonic() < deadline:
            time.sleep(0.01)
        self._stopping.set()
        self.reader.close()
        self.ledger.wake()
        for thread in self._threads:
            thread.join(max(0.1, deadline - time.monotonic()))
        self._close()

    def _connect(self, settings: Settings, purpose: str) -> Connection:
        self._connections.append(connect(settings.database.url, purpose))
        return self._connections[-1]

    def _close(self) -> None:
        for connection in self._connections:
            connection.close()

    def _guarded(self, run: Callable[[], None]) -> None:
        try:
            run()
        except Exception as error:  # kept for the service, which starts another pipeline
            if not self._stopping.is_set():
                self.failure = self.failure or error
            self._stopping.set()
            self._wake.set()
            self.ledger.wake()

    def _read(self) -> None:
        while not self._draining.is_set() and not self._stopping.is_set():
            self._beats["reader"] = time.monotonic()
            self._wake.clear()
            while not self._draining.is_set() and self.reader.cycle():
                self._beats["reader"] = time.monotonic()
                self.fresh.clear()  # it may have been set just after a wake-up
                self._check_encoder()
            self._check_encoder()
            if not self._draining.is_set() and self.reader.is_fresh():
                self.fresh.set()
                if self._wake.is_set():  # woken since that look began
                    self.fresh.clear()
            self._wake.wait(min(_IDLE_SECONDS, self.reader.patience()))

    def _write(self) -> None:
        self.writer.run(self._stopping, beat=lambda: self._beat("writer"), written=self._wake.set)

    def _beat(self, thread: str) -> None:
        self._beats[thread] = time.monotonic()

    def _check_encoder(self) -> None:
        if self.ledger.failure is not None:
            raise self.ledger.failure
