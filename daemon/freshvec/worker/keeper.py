"""The life of one sync in a worker: apply it, own it, run its pipeline, and begin again after a failure."""

import time

from loguru import logger

from freshvec.backoff import Backoff
from freshvec.capture.bell import Listener
from freshvec.config import Settings, Sync
from freshvec.db import translated
from freshvec.encoding.dispatch import Dispatcher
from freshvec.errors import FreshvecError, NotOwnedError
from freshvec.pipeline.pipeline import Pipeline
from freshvec.pipeline.progress import Progress
from freshvec.records import Model
from freshvec.schema.apply import apply
from freshvec.schema.plan import plan
from freshvec.source.bound import BoundSync
from freshvec.worker import ownership

_STANDBY_SECONDS = 1.0
RECOVERED_SECONDS = 5.0  # a pipeline that has run this long has recovered
_REPEAT_SECONDS = 60.0  # the same error is logged again after this long


class Keeper:
    """Brings one sync from declared to fresh. `advance` never raises for what a later attempt may cure."""

    def __init__(
        self, sync: Sync, model: Model, dispatcher: Dispatcher, settings: Settings, *, once: bool
    ) -> None:
        self.sync = sync
        self.progress = Progress()
        self.pipeline: Pipeline | None = None
        self.last_error: str | None = None
        self.was_fresh = False  # when the pipeline last ended
        self._model = model
        self.dispatcher = dispatcher
        self._settings = settings
        self._once = once
        self._bound: BoundSync | None = None
        self._owned = False
        self._backoff = Backoff()
        self._due = 0.0
        self._silenced = 0
        self._logged_at = 0.0
        self._running_since = 0.0

    @property
    def is_fresh(self) -> bool:
        return self.pipeline is not None and self.pipeline.fresh.is_set()

    def seconds_until_due(self) -> float:
        """When `advance` should be called again without any news."""
        return max(0.0, self._due - time.monotonic())

    def advance(self, listener: Listener) -> None:
        """Take whatever step is due."""
        if self.pipeline is not None and self.pipeline.failure is not None:
            failure = self.pipeline.failure
            self._end_pipeline(0.5)
            self._failed(failure)
        if time.monotonic() < self._due:
            return
        if self.pipeline is not None:
            self._settle()
            return
        try:
            with translated("start", f"sync {self.sync.name!r}"):
                self._begin(listener)
        except Exception as error:  # of one sync: the others go on
            helpless = not (isinstance(error, FreshvecError) and error.retryable)
            if listener.connection.broken or (self._once and helpless):
                raise
            self._failed(error)

    def wake(self) -> None:
        """Something may have changed: let the pipeline look now."""
        if self.pipeline is not None:
            self.pipeline.wake()

    def lose(self) -> None:
        """The listener's connection is gone and with it the ownership."""
        self._end_pipeline(0.5)
        self._owned = False
        self._due = 0.0

    def stop(self, drain_seconds: float) -> None:
        self._end_pipeline(drain_seconds)

    def _begin(self, listener: Listener) -> None:
        planned = plan(listener.connection, self.sync, self._model)
        self._bound = planned.bound
        if not planned.is_applied:  # else nothing is asked for that a worker with few rights could not do
            role = self._settings.database.worker_role
            self._bound, changed = apply(listener.connection, self.sync, self._model, role)
            if changed:  # else another worker was quicker
                logger.info("sync {}: applied to {}", self.sync.name, self.sync.table)
        if not self._owned:
            self._owned = ownership.own(listener.connection, self._bound.id)
            if not self._owned:
                self._stand_by(listener, self._bound.id)
                return
            logger.info("sync {}: owned by this worker", self.sync.name)
        self.pipeline = Pipeline(
            self._bound, self.dispatcher, self._settings, self.progress, walk_again=self._once
        )
        self._running_since = time.monotonic()
        self.pipeline.start()
        self._due = 0.0

    def _stand_by(self, listener: Listener, sync_id: int) -> None:
        owner = ownership.owner(listener.connection, sync_id)
        if self._once:
            raise NotOwnedError(
                "backfill",
                f"sync {self.sync.name!r}",
                f"a running worker keeps it fresh (backend {owner and owner[0]})",
                "See `freshvec status`; stop that worker first if you mean to do it by hand.",
            )
        if self._due == 0.0:
            logger.info("sync {}: another worker owns it; standing by", self.sync.name)
        self._due = time.monotonic() + _STANDBY_SECONDS

    def _end_pipeline(self, drain_seconds: float) -> None:
        if self.pipeline is not None:
            self.was_fresh = self.is_fresh
            self.pipeline.stop(drain_seconds)
            self.pipeline = None

    def _failed(self, error: Exception) -> None:
        """Log it, though not the same error over and over, and set the time of the next attempt."""
        said = str(error) if isinstance(error, FreshvecError) else f"{type(error).__name__}: {error}"
        delay = self._backoff.next_delay()
        self._due = time.monotonic() + delay
        if said == self.last_error and time.monotonic() - self._logged_at < _REPEAT_SECONDS:
            self._silenced += 1
            return
        logger.opt(exception=None if isinstance(error, FreshvecError) else error).error(
            "sync {}: {} (next attempt in {:.1f} s)", self.sync.name, said, delay
        )
        self.last_error, self._logged_at, self._silenced = said, time.monotonic(), 0

    def _settle(self) -> None:
        """After a while without a failure the trouble counts as over; said once."""
        if self.last_error and time.monotonic() - self._running_since > RECOVERED_SECONDS:
            logger.info("sync {}: recovered after {} attempts", self.sync.name, self._backoff.attempts)
            self.last_error = None
            self._backoff.reset()
