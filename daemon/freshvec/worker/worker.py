"""The worker: the composition root. Models, keepers, scheduler, signals, and the loop that waits for news."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Protocol

from apscheduler.events import EVENT_JOB_ERROR, JobExecutionEvent
from apscheduler.schedulers.background import BackgroundScheduler
from loguru import logger

from freshvec.backoff import Backoff
from freshvec.capture.bell import DDL, Listener, Waker
from freshvec.config import Settings, Sync
from freshvec.db import translated
from freshvec.encoding.dispatch import Dispatcher
from freshvec.encoding.loading import Models
from freshvec.errors import DatabaseError, FreshvecError, ModelError
from freshvec.pipeline.pressure import SECONDS_BETWEEN_LOOKS, Pressure
from freshvec.pipeline.resources import Resources
from freshvec.records import Encoder, Model
from freshvec.schema import migrations
from freshvec.worker import ownership
from freshvec.worker.activity import Activity
from freshvec.worker.keeper import Keeper
from freshvec.worker.sdnotify import notify, watchdog_seconds

_ACTIVITY_SECONDS = 5.0
_STANDBY_SECONDS = 1.0  # between looks whether a sync has lost its owner
_STUCK_SECONDS = 120.0  # a thread without a sign of life for this long: let the supervisor restart us


class Endpoint(Protocol):
    """What else a worker's process answers to, such as HTTP. The worker only starts and stops it."""

    def start(self) -> object: ...

    def stop(self) -> None: ...


class Worker:
    """One worker. `run` returns when it is told to stop, or with `once` when every row is fresh.

    `load` gives a model's encoder, `endpoint` makes an endpoint of the dispatchers by their model's name,
    `reload` reads the file again.
    """

    def __init__(
        self,
        settings: Settings,
        syncs: tuple[Sync, ...],
        *,
        once: bool = False,
        on_tick: Callable[[list[Keeper]], None] = lambda keepers: None,
        tick_seconds: float = 5.0,
        load: Callable[[str], Encoder] | None = None,
        endpoint: Callable[[Mapping[str, Dispatcher]], Endpoint] | None = None,
        reload: Callable[[], tuple[Settings, tuple[Sync, ...]]] | None = None,
    ) -> None:
        sys.setswitchinterval(0.001)  # a live change must not wait for another thread's turn to end
        self._settings = settings
        self._once = once
        self._models = Models(settings)
        self._load = load or self._models.encoder
        self._on_tick = on_tick
        self._tick_seconds = tick_seconds
        self._waker = Waker()
        self._pressure = Pressure(settings.daemon.pause_at_lag_seconds)
        self._resources = Resources(settings.database.url, self._pressure)
        self._own_due = 0.0
        self._stopping = threading.Event()
        self._reload = reload
        self._reloading = threading.Event()
        self.dispatchers: dict[str, Dispatcher] = {}
        self.keepers: list[Keeper] = []
        for sync in syncs:
            try:
                self._add_sync(sync)
            except ModelError as error:
                # One bad model must not keep the other tables from being fresh.
                if once or len(syncs) == 1:
                    raise
                logger.error("sync {}: {}", sync.name, error)
        if not self.keepers:
            raise ModelError(
                "run", "any sync", "none of their models could be loaded", "See the errors above."
            )
        self._endpoint = endpoint(self.dispatchers) if endpoint else None
        self._watchdog = watchdog_seconds()
        self._activity = Activity(settings, self._pressure)

    def run(self) -> None:
        """Work until stopped. Raises FreshvecError for what needs somebody's help before anything can run."""
        if self._endpoint is not None:
            self._endpoint.start()
        scheduler = self._schedule()
        backoff = Backoff()
        try:
            while not self._stopping.is_set():
                try:
                    self._listen_once(backoff)
                except DatabaseError as error:
                    if self._once or not error.retryable:
                        raise
                    delay = backoff.next_delay()
                    self.ping()  # a server that is away is waited for; that is no reason to be killed
                    logger.warning("{} (next attempt in {:.1f} s)", error, delay)
                    self._stopping.wait(delay)
        finally:
            notify("STOPPING=1")
            scheduler.shutdown(wait=False)
            if self._endpoint is not None:
                self._endpoint.stop()
            for keeper in self.keepers:
                keeper.stop(self._settings.daemon.shutdown_seconds)
            self.housekeep()
            for dispatcher in self.dispatchers.values():
                dispatcher.stop(timeout=2.0)
            self._resources.close()
            self._waker.close()

    def stop(self) -> None:
        """Drain what is under way and return from `run`."""
        self._stopping.set()
        self._waker.wake()

    def handle_signals(self) -> None:
        """First SIGTERM or SIGINT drains within a bound, the second ends at once; nothing is lost either
        way."""

        def on_signal(number: int, frame: FrameType | None) -> None:
            if self._stopping.is_set():
                os._exit(128 + number)
            logger.info(
                "{}: finishing what is under way (again to stop at once)", signal.Signals(number).name
            )
            self.stop()

        signal.signal(signal.SIGTERM, on_signal)
        signal.signal(signal.SIGINT, on_signal)
        signal.signal(signal.SIGHUP, self._on_reload)

    def _on_reload(self, number: int, frame: FrameType | None) -> None:
        self._reloading.set()
        self._waker.wake()

    def _take_up(self, listener: Listener) -> None:
        """What the file declares now: syncs gone or changed end, new ones begin, the others go on."""
        self._reloading.clear()
        if self._reload is None:
            return
        try:
            _, syncs = self._reload()
        except FreshvecError as error:
            logger.error("the file is not taken up, the old one stays: {}", error)
            return
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        declared = {sync.name: sync for sync in syncs}
        leaving = [keeper for keeper in self.keepers if declared.get(keeper.sync.name) != keeper.sync]
        for keeper in leaving:
            keeper.leave(listener, self._settings.daemon.shutdown_seconds)
            self.keepers.remove(keeper)
        kept = {keeper.sync.name for keeper in self.keepers}
        for name in declared.keys() - kept:
            try:
                self._add_sync(declared[name])
            except ModelError as error:
                logger.error("sync {}: {}", name, error)
        logger.info("the file was read again; syncs: {}", ", ".join(sorted(declared)) or "none")
        notify("READY=1\nSTATUS=listening")

    def _add_sync(self, sync: Sync) -> None:
        if sync.model not in self.dispatchers:
            encoder = self._load(sync.model)
            self.dispatchers[sync.model] = self._models.dispatcher(sync.model, encoder)
            logger.info("model {} on {}", sync.model, encoder.device)
        dispatcher = self.dispatchers[sync.model]
        encoder = dispatcher.encoder
        described = Model(sync.model, encoder.dimension, encoder.max_tokens, encoder.fingerprint)
        settings, resources = self._settings, self._resources
        keeper = Keeper(sync, described, dispatcher, settings, resources, self._waker.wake, once=self._once)
        self.keepers.append(keeper)

    def _listen_once(self, backoff: Backoff) -> None:
        """One life of the listener's connection: LISTEN first, then look at everything."""
        listener = Listener(self._settings.database.url, self._waker)
        self._own_due = 0.0
        try:
            applied = migrations.migrate(listener.connection)
            if applied:
                logger.info("migrated: {}", ", ".join(applied))
            with translated("keep", "the syncs"):
                self._keep(listener, backoff)
        finally:
            if not self._stopping.is_set() or listener.connection.broken:
                for keeper in self.keepers:
                    keeper.lose()
            else:
                deadline = time.monotonic() + self._settings.daemon.shutdown_seconds  # of all together
                for keeper in self.keepers:
                    keeper.stop(max(0.0, deadline - time.monotonic()))
            listener.close()

    def _keep(self, listener: Listener, backoff: Backoff) -> None:
        """Advance every sync, and wait for news or for what is due, until told to stop."""
        is_ready = False
        while not self._stopping.is_set():
            if self._reloading.is_set():
                self._take_up(listener)
            by_name = {keeper.sync.name: keeper for keeper in self.keepers}
            self._own(listener)
            for keeper in self.keepers:
                keeper.advance(listener)
            if not is_ready:
                backoff.reset()
                notify("READY=1\nSTATUS=listening")
                is_ready = True
            self._check_devices()
            self.ping()
            self._on_tick(self.keepers)
            if self._once and all(keeper.is_fresh for keeper in self.keepers):
                self.stop()
                return
            for name, times in listener.wait(self._patience()).items():
                if name == DDL:
                    self.sweep()
                elif name in by_name:
                    by_name[name].rang(times, listener)

    def _own(self, listener: Listener) -> None:
        """Become the owner of what nobody owns: one query, however many syncs stand by."""
        wanting = [keeper for keeper in self.keepers if keeper.wants_ownership]
        if not wanting or time.monotonic() < self._own_due:
            return
        owned = ownership.own(listener.connection, [keeper.sync.name for keeper in wanting])
        for keeper in wanting:
            if keeper.sync.name in owned:
                keeper.own(listener.connection)
            else:
                keeper.stand_by(listener.connection)
        self._own_due = time.monotonic() + _STANDBY_SECONDS

    def _check_devices(self) -> None:
        """End for the supervisor to start another process, where this one cannot encode any more.

        Raises DeviceError.
        """
        for dispatcher in self.dispatchers.values():
            if dispatcher.lost is not None:
                self._stopping.set()  # so that what is encoded is written on the way out
                raise dispatcher.lost

    def _patience(self) -> float:
        """Seconds until something is due without news."""
        due = [keeper.seconds_until_due() for keeper in self.keepers if keeper.seconds_until_due() > 0]
        if any(keeper.wants_ownership for keeper in self.keepers):
            due.append(self._own_due - time.monotonic())
        watchdog = [self._watchdog / 3] if self._watchdog else []
        return max(0.01, min([self._tick_seconds, *due, *watchdog]))

    def ping(self) -> None:
        """Tell the watchdog that the pipelines move; when one does not, say nothing and be restarted."""
        if all(keeper.pipeline is None or keeper.pipeline.beat() < _STUCK_SECONDS for keeper in self.keepers):
            notify("WATCHDOG=1")

    def _schedule(self) -> BackgroundScheduler:
        scheduler = BackgroundScheduler(
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}, timezone="UTC"
        )
        sweep = self._settings.daemon.sweep_seconds
        scheduler.add_job(self.sweep, "interval", seconds=sweep, jitter=sweep / 10, id="sweep")
        scheduler.add_job(self.housekeep, "interval", seconds=_ACTIVITY_SECONDS, id="activity")
        if self._pressure.is_asked_for:
            scheduler.add_job(
                self._activity.feel_pressure, "interval", seconds=SECONDS_BETWEEN_LOOKS, id="pressure"
            )

        def on_error(event: JobExecutionEvent) -> None:
            logger.warning("housekeeping {}: {}", event.job_id, event.exception)

        scheduler.add_listener(on_error, EVENT_JOB_ERROR)
        scheduler.start()
        return scheduler

    def sweep(self) -> None:
        """A notification is a hint, this is the guarantee."""
        for keeper in self.keepers:
            keeper.sweep()
        self._waker.wake()

    def housekeep(self) -> None:
        """Keep what was found out about batch sizes, and what was measured."""
        for name, dispatcher in self.dispatchers.items():
            self._models.budgets.keep(name, dispatcher.encoder.device, dispatcher.budget)
        self._activity.keep(self.keepers)
