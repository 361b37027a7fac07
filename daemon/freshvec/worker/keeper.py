"""The life of one sync in a worker: own it, apply it, run its pipeline, and begin again after a failure."""

import time
from collections.abc import Callable
from typing import NoReturn

from loguru import logger

from freshvec.backoff import Backoff
from freshvec.capture.bell import Listener
from freshvec.config import Settings, Sync
from freshvec.db import Connection, translated
from freshvec.encoding.dispatch import Dispatcher
from freshvec.errors import FreshvecError
from freshvec.pipeline.epoch import take
from freshvec.pipeline.pipeline import Pipeline
from freshvec.pipeline.progress import Progress
from freshvec.pipeline.resources import Resources
from freshvec.pipeline.share import WHOLE
from freshvec.records import Model
from freshvec.schema import identity, migrations
from freshvec.schema.plan import Plan, plan
from freshvec.worker import ownership
from freshvec.worker.binding import Binding, bind, is_mended, redefined
from freshvec.worker.failures import Failures
from freshvec.worker.indexing import Indexing
from freshvec.worker.preparing import Preparing
from freshvec.worker.ringing import Ringing
from freshvec.worker.shares import Seen, Shares
from freshvec.worker.walks import Walks

_HANDOVER_SECONDS = 0.5  # to write live changes that were read, before shards change hands
_TURN_SECONDS = 0.3  # between looks whether the one that leads has applied what is declared


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
        self.was_fresh = False  # when the pipeline last ended
        self.dispatcher = dispatcher
        self._model = model
        self._settings = settings
        self._resources = resources
        self._on_event = on_event  # of the pipeline: let the main loop advance
        self._once = once
        self._seen: int | None = None  # the generation that this declaration was first compared with
        self._binding: Binding | None = None  # the last one
        self._walks = Walks(sync.name, settings.daemon.sweep_seconds)
        self._indexing = Indexing(resources.builds, settings.daemon.sweep_seconds, on_event, once=once)
        self._preparing = Preparing(settings.database.url, on_event)
        self._check_due = False
        self.is_owner = False  # this worker keeps the sync, or a share of it
        self.stands_by = False  # another worker owns the sync
        self._failures = Failures(sync.name)
        self._shares = Shares(sync.name) if settings.daemon.share else None
        self._ringing = Ringing(sync.name, settings.daemon)
        self._aside = Backoff(first=1.0, cap=10.0)
        self._has_walked = False  # a walk was seen under way
        self._due = self._running_since = 0.0

    @property
    def is_fresh(self) -> bool:
        return (now := self.pipeline) is not None and now.fresh.is_set()  # other threads ask, too

    @property
    def last_error(self) -> str | None:
        return self._failures.last

    @property
    def is_done(self) -> bool:
        """Whether every row is fresh, and the index as declared as far as this worker may make it so."""
        is_built = self._indexing.is_settled or not self.leads
        walked = self._has_walked or (self.pipeline is not None and self.pipeline.walker.has_walked)
        return self.is_fresh and is_built and (walked or self._shares is None)

    @property
    def leads(self) -> bool:
        """Whether this worker does for the sync what only one may do."""
        return self.is_owner and (self._shares is None or self._shares.leads)

    @property
    def is_sharing(self) -> bool:
        """Whether other workers may keep the sync together with this one."""
        return self.is_owner and self._shares is not None

    @property
    def phase(self) -> str:
        """What is being done, in the words of `freshvec.progress`."""
        return "applying" if (now := self.pipeline) is None else now.phase

    @property
    def trouble(self) -> str | None:
        """What keeps the sync from being kept as declared."""
        return ((last := self._binding) and last.trouble) or self.last_error

    def seconds_until_due(self) -> float:
        """When `advance` should be called again without any news."""
        return max(0.0, self._due - time.monotonic())

    def advance(self, listener: Listener) -> None:
        """Take whatever step is due."""
        if self.pipeline is not None and self.pipeline.failure is not None:
            self.failed(self.pipeline.failure, listener)
        if not self.is_owner or time.monotonic() < self._due:
            return
        try:
            with translated("keep", f"sync {self.sync.name!r}"):
                if self.pipeline is None:
                    self._begin(listener)
                else:
                    self._look(listener)
                    if self.pipeline is not None:
                        self._ringing.tend(listener, self.pipeline)
                    if self.leads:
                        self._indexing.tend(listener.connection, self.pipeline)
                    self._failures.settle(self._running_since)
        except Exception as error:  # of one sync: the others go on
            helpless = not (isinstance(error, FreshvecError) and error.retryable)
            if listener.connection.broken or (self._once and helpless):
                raise
            self.failed(error, listener)

    def rang(self, times: int, listener: Listener) -> None:
        """Something has changed: let the pipeline look now."""
        if self.pipeline is not None:
            self._ringing.rang(times, listener, self.pipeline)

    def poll(self) -> None:
        """Nobody rings any more, as far as this worker knows."""
        if self.pipeline is not None:
            self._ringing.poll(self.pipeline)

    def sweep(self) -> None:
        """Look at everything once, whatever was or was not heard."""
        self._check_due = True
        self._indexing.look_soon()
        if self.pipeline is not None:
            self.pipeline.look()

    def lose(self) -> None:
        """The listener's connection is gone and with it the ownership."""
        self.stop(0.5)
        self._ringing.lose()
        if self._shares is not None:
            self._shares.lose()
        self.is_owner = self.stands_by = False
        self._due = 0.0

    def stop(self, drain_seconds: float) -> None:
        if self.pipeline is not None:
            self.was_fresh = self.is_fresh
            self._has_walked |= self.pipeline.walker.has_walked
            self.pipeline.stop(drain_seconds)
            self.pipeline = None

    def leave(self, listener: Listener, drain_seconds: float) -> None:
        """End, and let another worker have the sync: it is declared no more, or otherwise."""
        self.stop(drain_seconds)
        self._ringing.let_go(listener.connection)
        if self.is_owner and self._shares is not None:
            self._shares.leave(listener.connection)
        elif self.is_owner:
            ownership.disown(listener.connection, self.sync.name)
        self.is_owner = False

    def _begin(self, listener: Listener) -> None:
        """Own first, apply second: whoever stands by must not put an older definition over a newer one."""
        connection = listener.connection
        self._ringing.let_go(connection)  # of a pipeline that has ended
        if migrations.pending(connection):
            migrations.migrate(connection)
        planned = self._plan(connection)
        if planned.is_redefined and planned.bound.generation != self._seen and planned.applied is not None:
            self._give_way(listener)
        elif not self.leads and planned.is_redefined and planned.applied is not None:
            self._step_aside(listener)
            return
        self._binding = self._bound(connection, planned)
        if self._binding is None:
            self._due = time.monotonic() + _TURN_SECONDS
            return
        bound = self._binding.bound
        self._walks.begin(connection, bound)
        share = WHOLE if self._shares is None else self._shares.begin(connection, bound.id)
        self.pipeline = Pipeline(
            bound,
            self.dispatcher,
            self._settings.daemon,
            self.progress,
            self._resources,
            self._on_event,
            take(connection, bound.name, bound.generation, share),
            walk_again=self._once and share.leads and (share.is_whole or not self._has_walked),
            tells_rest=self._once,
        )
        self._aside.reset()
        self._seen = bound.generation
        self._running_since = time.monotonic()
        self.pipeline.start()
        self._due = 0.0

    def _bound(self, connection: Connection, planned: Plan) -> Binding | None:
        """None while something is prepared for it, or the one that leads is at it."""
        if not self.leads:
            is_bound = not (planned.is_redefined or planned.needs_objects or planned.difference.is_binding)
            return Binding(planned.bound) if is_bound else None
        prepared = self._preparing.prepared(planned)
        if prepared is None:
            return None
        return bind(connection, self.sync, prepared, lambda: self._plan(connection))

    def _plan(self, connection: Connection) -> Plan:
        return plan(connection, self.sync, self._model, self._settings.database.worker_role)

    def _give_way(self, listener: Listener) -> NoReturn:
        """Say why this worker keeps the sync no more, and let one have it whose file says what is applied."""
        error = redefined(self.sync)
        self._failures.show(str(error), listener.connection)
        self.leave(listener, 0.0)
        raise error

    def _step_aside(self, listener: Listener) -> None:
        """Share no more with those who have applied another definition, and ask again later."""
        if not self._aside.attempts:
            logger.warning("{}", redefined(self.sync))
        self.leave(listener, 0.0)
        self._due = time.monotonic() + self._aside.next_delay()

    def _look(self, listener: Listener) -> None:
        """At a sweep: whether table, triggers, grants and the applied generation are still the same."""
        if not self._check_due or self.pipeline is None:
            return
        self._check_due = False
        connection = listener.connection
        self._ringing.look(listener, self.pipeline)
        bound, binding = self.pipeline.bound, self._binding
        if not identity.is_as_noted(connection, bound) or (
            binding is not None and is_mended(connection, binding, lambda: self._plan(connection))
        ):
            logger.info("sync {}: its table or what was applied has changed; looking again", self.sync.name)
            self.stop(0.5)
            self._due = 0.0
        elif self.leads and binding is not None and binding.misses_changes:
            self._walks.tend(connection, self.pipeline)

    def balance(self, seen: Seen, listener: Listener) -> None:
        """Have a fair share of a sync that others keep, too. A pipeline ends when its share changes."""
        shares, connection = self._shares, listener.connection
        if shares is None or not self.is_owner:
            return
        if shares.notice(seen):
            self.poll()  # who has gone may have had the bell
        shares.balance(connection, lambda: self.stop(_HANDOVER_SECONDS), may_gain=self.pipeline is not None)
        if self.pipeline is not None:
            shares.tell(connection, self.progress)
            if seen.is_walked and not self.pipeline.is_walking:
                self.pipeline.ring()  # the one that leads has begun a walk

    @property
    def wants_ownership(self) -> bool:
        return not self.is_owner and time.monotonic() >= self._due

    def own(self, connection: Connection) -> None:
        """This worker is the owner now."""
        if self._seen is None:
            self._seen = ownership.generation(connection, self.sync.name)
        self.is_owner, self.stands_by, self._due = True, False, 0.0
        logger.info("sync {}: {} by this worker", self.sync.name, "shared" if self._shares else "owned")

    def stand_by(self, connection: Connection) -> None:
        """Another worker owns the sync. Raises NotOwnedError where this one is to work once."""
        if self._seen is None:
            self._seen = ownership.generation(connection, self.sync.name)
        if self._once:
            raise ownership.refusal(connection, self.sync.name)
        if not self.stands_by:
            logger.info("sync {}: another worker owns it; standing by", self.sync.name)
        self.stands_by = True

    def failed(self, error: Exception, listener: Listener) -> None:
        """End the pipeline, and try again later. One that fails again leaves its shards to others."""
        self.stop(0.5)
        delay = self._failures.note(error, listener.connection if self.leads else None)
        if self.is_sharing and self._failures.attempts > 1 and not listener.connection.broken:
            self.leave(listener, 0.0)
        self._due = time.monotonic() + delay
