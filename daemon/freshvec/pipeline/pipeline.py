"""The pipeline of one sync: reader and writer side by side, the encoder between them.

It is crash-only: all state is in the database, so after any error the whole pipeline is thrown away and
another one begins from what the tables say.
"""

import threading
import time
from collections.abc import Callable

from freshvec.config import Daemon
from freshvec.encoding.dispatch import Dispatcher
from freshvec.pipeline.epoch import Epoch
from freshvec.pipeline.ledger import Ledger
from freshvec.pipeline.polling import Polling
from freshvec.pipeline.progress import Progress
from freshvec.pipeline.reader import Reader
from freshvec.pipeline.resources import Resources
from freshvec.pipeline.writer import Writer
from freshvec.records import Urgency
from freshvec.source.bound import BoundSync

_IDLE_SECONDS = 60.0  # a reader looks up this often, whatever it heard


class Pipeline:
    """Keeps one sync fresh from `start` until `stop` or a failure.

    `on_event` is called, on any thread, when there is a failure, the bell is wanted, or, with `tells_rest`,
    each time that nothing is left to do.
    """

    def __init__(
        self,
        bound: BoundSync,
        dispatcher: Dispatcher,
        settings: Daemon,
        progress: Progress,
        resources: Resources,
        on_event: Callable[[], None],
        epoch: Epoch,
        *,
        walk_again: bool = False,
        tells_rest: bool = False,
    ) -> None:
        self.bound = bound
        self.progress = progress
        progress.starts += 1
        self.failure: Exception | None = None
        self.fresh = threading.Event()  # set while nothing is left to do
        self._tells_rest = tells_rest
        self.polling = Polling(on_event)
        self._on_event = on_event
        self._is_rung = self._is_woken = False  # since the step under way began
        self._is_draining = False  # read nothing more
        self._reading = resources.readers.task(self._read)
        self._writing = resources.writers.task(self._write)
        self.ledger = Ledger(self._on_ready)
        shared = (settings, progress, self.ledger, epoch)
        self.writer = Writer(resources.pool, bound, *shared)
        self.reader = Reader(
            resources.pool, bound, dispatcher, *shared, resources.pages, resources.pressure, resources.replica
        )
        self.walker = self.reader.walker
        if walk_again and self.walker.is_over:
            self.walker.restart()
        elif epoch.share.leads and not walk_again:
            self.walker.prove_soon(settings.prove_every_hours * 3600)

    def start(self) -> None:
        self._reading.wake()

    def ring(self) -> None:
        """Something has changed: read now."""
        self._is_rung = True
        self.look()

    def look(self) -> None:
        """Something may have changed: look now whether it has."""
        self._is_woken = True
        self.fresh.clear()
        self._reading.wake(urgent=True)

    @property
    def is_walking(self) -> bool:
        """Whether the whole table is being compared."""
        return not self.walker.is_over

    @property
    def phase(self) -> str:
        """What is being done, in the words of `freshvec.progress`."""
        return self.walker.phase

    def beat(self) -> float:
        """Seconds that the slower of the two steps under way has taken."""
        return max(self._reading.seconds_in_step(), self._writing.seconds_in_step())

    def stop(self, drain_seconds: float) -> None:
        """Read nothing more, let live changes that were read be written, and end within the bound.

        What is not written by then is still in the queue, or beyond the backfill's checkpoint.
        """
        self._is_draining = True
        deadline = time.monotonic() + drain_seconds
        while self.failure is None and self.ledger.in_flight(Urgency.LIVE) and time.monotonic() < deadline:
            time.sleep(0.01)
        self._reading.close(max(0.1, deadline - time.monotonic()))
        self.reader.close()
        # Where it is the encoder that fails, what it did before can be written.
        may_write = self.failure is None or self.failure is self.ledger.failure
        if self._writing.close(max(0.1, deadline - time.monotonic())) and may_write:
            self._write_rest(deadline)

    def _write_rest(self, deadline: float) -> None:
        """Write what is ready, while there is time."""
        try:
            while time.monotonic() < deadline and not self.writer.step(hurry=True):
                pass
        except Exception as error:
            self._failed(error)

    def _read(self) -> float:
        if self._is_draining or self.failure is not None:
            return _IDLE_SECONDS
        try:
            is_rung, self._is_rung, self._is_woken = self._is_rung, False, False
            if self.ledger.failure is not None:
                raise self.ledger.failure
            is_fresh = not is_rung and self.reader.is_at_rest()
            if not is_fresh and self.reader.cycle():
                self.polling.found(self.reader.found)
                self.fresh.clear()  # it may have been set just after a wake-up
                return self.reader.breath()
            if is_fresh or self.reader.is_fresh():
                self._come_to_rest()
            return min(_IDLE_SECONDS, max(self.reader.patience(), 0.001), self.polling.pause())
        except Exception as error:
            return self._failed(error)

    def _come_to_rest(self) -> None:
        """Nothing is left to do, unless it was woken since that look began."""
        was_fresh = self.fresh.is_set()
        self.fresh.set()
        if self._is_woken:
            self.fresh.clear()
        elif self._tells_rest and not was_fresh:
            self._on_event()

    def _write(self) -> float:
        if self.failure is not None:
            return _IDLE_SECONDS
        try:
            delay = self.writer.step()
        except Exception as error:
            return self._failed(error)
        if not delay:
            self._reading.wake()
        return delay

    def _on_ready(self, urgency: Urgency) -> None:
        self._writing.wake(urgent=urgency is Urgency.LIVE)
        if self.ledger.failure is not None:
            self._reading.wake()

    def _failed(self, error: Exception) -> float:
        """Kept for the keeper, which starts another pipeline."""
        self.failure = self.failure or error
        self._on_event()
        return _IDLE_SECONDS
