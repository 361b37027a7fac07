"""The life of one sync in a worker: own it, apply it, run its pipeline, and begin again after a failure."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from loguru import logger

from freshvec.backoff import Backoff
from freshvec.capture.bell import Bell, Listener
from freshvec.config import Settings, Sync
from freshvec.db import Connection, translated
from freshvec.encoding.dispatch import Dispatcher
from freshvec.errors import FreshvecError, LockedError
from freshvec.pipeline.pipeline import Pipeline
from freshvec.pipeline.progress import Progress
from freshvec.pipeline.resources import Resources
from freshvec.records import Model
from freshvec.schema import identity, migrations
from freshvec.schema.plan import Plan, plan
from freshvec.source.locks import FIRST_PAUSE
from freshvec.worker import ownership
from freshvec.worker.binding import Binding, bind, redefined, undone
from freshvec.worker.indexing import Indexing
from freshvec.worker.walks import Walks

RECOVERED_SECONDS = 5.0  # a pipeline that has run this long has recovered
_REPEAT_SECONDS = 60.0  # the same error is logged again after this long


class Keeper:
    """Brings one sync from declared to fresh. `advance` never raises for what a later attempt may cure."""

    def __init__(
        self,
        sync: Sync,
        model: Model,
        dispatcher: Dispatcher,
        settings: Settings,
        resources: Resources,
        on_event: Callable[[], None],
        *,
        once: bool,
    ) -> None:
        self.sync = sync
        self.progress = Progress()
        self.pipeline: Pipeline | None = None
        self.last_error: str | None = None
        self.was_fresh = False  # when the pipeline last ended
        self.dispatcher = dispatcher
        self._model = model
        self._settings = settings
        self._resources = resources
        self._on_event = on_event  # of the pipeline: let the main loop advance
        self._once = once
        self._bell = Bell(sync.name)
        self._identity = ""  # of the binding that the pipeline works by
        # The generation when this declaration was first compared with what is applied.
        self._seen: int | None = None
        self._binding: Binding | None = None  # the last one
        self._walks = Walks(sync.name, settings.daemon.sweep_seconds)
        self._indexing = Indexing(resources.builds, settings.daemon.sweep_seconds, on_event, once=once)
        self._check_due = False
        self._owned = False
        self.stands_by = False  # another worker owns the sync
        self._backoff = Backoff()
        self._lock_pauses = Backoff(first=FIRST_PAUSE, cap=2.0)
        self._due = 0.0
        self._logged, self._logged_at = "", 0.0
        self._running_since = 0.0

    @property
    def is_fresh(self) -> bool:
        return self.pipeline is not None and self.pipeline.fresh.is_set()

    @property
    def is_done(self) -> bool:
        """Whether every row is fresh, and the index as declared as far as this worker may make it so."""
        return self.is_fresh and self._indexing.is_settled

    @property
    def is_owner(self) -> bool:
        """Whether this worker is the one that keeps the sync."""
        return self._owned

    @property
    def phase(self) -> str:
        """What is being done, in the words of `freshvec.progress`."""
        pipeline = self.pipeline
        return "applying" if pipeline is None else pipeline.phase

    @property
    def trouble(self) -> str | None:
        """What keeps the sync from being kept as declared."""
        return (self._binding and self._binding.trouble) or self.last_error

    def seconds_until_due(self) -> float:
        """When `advance` should be called again without any news."""
        return max(0.0, self._due - time.monotonic())

    def advance(self, listener: Listener) -> None:
        """Take whatever step is due."""
        if self.pipeline is not None and self.pipeline.failure is not None:
            failure = self.pipeline.failure
            self._end_pipeline(0.5)
            self._failed(failure, listener.connection)
        if not self._owned or time.monotonic() < self._due:
            return
        try:
            with translated("keep", f"sync {self.sync.name!r}"):
                if self.pipeline is None:
                    self._begin(listener)
                else:
                    self._look(listener)
                    self._tend_bell(listener)
                    self._indexing.tend(listener.connection, self.pipeline)
                    self._settle()
        except Exception as error:  # of one sync: the others go on
            helpless = not (isinstance(error, FreshvecError) and error.retryable)
            if listener.connection.broken or (self._once and helpless):
                raise
            self._end_pipeline(0.5)
            self._failed(error, listener.connection)

    def rang(self, times: int, listener: Listener) -> None:
        """Something has changed: let the pipeline look now."""
        if self.pipeline is None:
            return
        self.pipeline.ring()
        if self._bell.is_too_loud(times, listener.connection):
            self._silence(listener.connection)

    def sweep(self) -> None:
        """Look at everything once, whatever was or was not heard: queue, table, triggers, grants."""
        self._check_due = True
        self._indexing.look_soon()
        if self.pipeline is not None:
            self.pipeline.look()

    def lose(self) -> None:
        """The listener's connection is gone and with it the ownership."""
        self._end_pipeline(0.5)
        self._bell.lose()
        self._owned = self.stands_by = False
        self._due = 0.0

    def stop(self, drain_seconds: float) -> None:
        self._end_pipeline(drain_seconds)

    def leave(self, listener: Listener, drain_seconds: float) -> None:
        """End, and let another worker have the sync: it is declared no more, or otherwise."""
        self._end_pipeline(drain_seconds)
        self._bell.release(listener.connection)
        if self._owned:
            ownership.disown(listener.connection, self.sync.name)
            self._owned = False

    def _begin(self, listener: Listener) -> None:
        """Own first, apply second: whoever stands by must not put an older definition over a newer one."""
        connection = listener.connection
        self._bell.release(connection)  # of a pipeline that has ended
        if migrations.pending(connection):
            migrations.migrate(connection)
        planned = self._plan(connection)
        if planned.is_redefined and planned.bound.generation != self._seen and planned.applied is not None:
            self._give_way(listener)
        self._binding = bind(connection, self.sync, planned, lambda: self._plan(connection))
        bound = self._binding.bound
        self._identity = identity.applied(connection, self.sync.name)  # it may fail: before the pipeline
        self.pipeline = Pipeline(
            bound,
            self.dispatcher,
            self._settings.daemon,
            self.progress,
            self._resources,
            self._on_event,
            walk_again=self._once,
        )
        self._seen = bound.generation
        self._running_since = time.monotonic()
        self._walks.rest()
        self.pipeline.start()
        self._due = 0.0

    def _plan(self, connection: Connection) -> Plan:
        return plan(connection, self.sync, self._model, self._settings.database.worker_role)

    def _give_way(self, listener: Listener) -> NoReturn:
        """Say why this worker keeps the sync no more, and let one have it whose file says what is applied."""
        error = redefined(self.sync)
        self._show_trouble(listener.connection, str(error))
        self.leave(listener, 0.0)
        raise error

    def _look(self, listener: Listener) -> None:
        """At a sweep: whether the table, its triggers, its grants and the applied generation are still the
        same."""
        if not self._check_due or self.pipeline is None:
            return
        self._check_due = False
        connection = listener.connection
        if self._bell.is_taken and listener.is_queue_filling():
            self._silence(connection)
        now, generation = identity.read(connection, self.pipeline.bound)
        is_same = identity.is_same(now, self._identity) and generation == self.pipeline.bound.generation
        if not is_same or self._is_mended(connection):
            logger.info(
                "sync {}: {} or what was applied has changed; looking again", self.sync.name, self.sync.table
            )
            self._end_pipeline(0.5)
            self._due = 0.0
        elif self._binding is not None and self._binding.misses_changes:
            self._walks.tend(connection, self.pipeline)

    def _is_mended(self, connection: Connection) -> bool:
        """Whether somebody has done some of what this worker may not, or has given it the right."""
        with suppress(LockedError):
            if self._binding is not None and self._binding.trouble is not None:
                return undone(connection, self._plan(connection)) != self._binding.undone
        return False

    def _tend_bell(self, listener: Listener) -> None:
        """Take the bell once it has become quiet, unless nobody may ring."""
        pipeline = self.pipeline
        is_wanted = pipeline is not None and pipeline.polling.wants_bell and not self._bell.is_taken
        if pipeline is None or not is_wanted or self._settings.daemon.wake == "poll" or not listener.may_ring:
            return
        pipeline.polling.wants_bell = False
        if self._bell.take(listener.connection):
            pipeline.polling.is_rung = True
            pipeline.look()  # what was written before the bell was taken did not ring

    def _silence(self, connection: Connection) -> None:
        """Let the pipeline poll: ringing would cost the writers more."""
        self._bell.release(connection)
        if self.pipeline is not None:
            self.pipeline.polling.begin()
            self.pipeline.look()  # it may have gone to sleep until it is rung

    @property
    def wants_ownership(self) -> bool:
        return not self._owned and time.monotonic() >= self._due

    def own(self, connection: Connection) -> None:
        """This worker is the owner now."""
        if self._seen is None:
            self._seen = ownership.generation(connection, self.sync.name)
        self._owned, self.stands_by, self._due = True, False, 0.0
        logger.info("sync {}: owned by this worker", self.sync.name)

    def stand_by(self, connection: Connection) -> None:
        """Another worker owns the sync. Raises NotOwnedError where this one is to work once."""
        if self._seen is None:
            self._seen = ownership.generation(connection, self.sync.name)
        if self._once:
            raise ownership.refusal(connection, self.sync.name)
        if not self.stands_by:
            logger.info("sync {}: another worker owns it; standing by", self.sync.name)
        self.stands_by = True

    def _end_pipeline(self, drain_seconds: float) -> None:
        if self.pipeline is not None:
            self.was_fresh = self.is_fresh
            self.pipeline.stop(drain_seconds)
            self.pipeline = None

    def _failed(self, error: Exception, connection: Connection) -> None:
        """Log it, though not the same error over and over, and set the time of the next attempt."""
        message = str(error) if isinstance(error, FreshvecError) else f"{type(error).__name__}: {error}"
        is_locked = isinstance(error, LockedError)
        delay = (self._lock_pauses if is_locked else self._backoff).next_delay()
        self._due = time.monotonic() + delay
        kind = LockedError.__name__ if is_locked else message  # who is in the way may change each time
        is_said = kind == self._logged and time.monotonic() - self._logged_at < _REPEAT_SECONDS
        if not is_said:
            logger.opt(exception=None if isinstance(error, FreshvecError) else error).error(
                "sync {}: {} (next attempt in {:.1f} s)", self.sync.name, message, delay
            )
            self._logged, self._logged_at = kind, time.monotonic()
        if not is_said or message != self.last_error:
            self.last_error = message
            self._show_trouble(connection, message)

    def _show_trouble(self, connection: Connection, message: str) -> None:
        """Let `status` say it, where there is a place to say it."""
        try:
            if self._owned and migrations.is_bootstrapped(connection):
                ownership.keep_trouble(connection, self.sync.name, message)
        except Exception as error:  # what is wrong may be this very table
            logger.debug("sync {}: {}", self.sync.name, error)

    def _settle(self) -> None:
        """After a while without a failure the trouble counts as over; said once."""
        if self.last_error and time.monotonic() - self._running_since > RECOVERED_SECONDS:
            attempts = self._backoff.attempts + self._lock_pauses.attempts
            logger.info("sync {}: recovered after {} attempts", self.sync.name, attempts)
            self.last_error, self._logged = None, ""
            self._backoff.reset()
            self._lock_pauses.reset()
