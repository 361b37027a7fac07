"""The composition root: models, keepers, ownership, scheduler, signals, supervisor."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import TYPE_CHECKING

from apscheduler.events import EVENT_JOB_ERROR, JobExecutionEvent
from apscheduler.schedulers.background import BackgroundScheduler
from loguru import logger

from embedsync import migrations
from embedsync.backoff import Backoff
from embedsync.config import Settings, Sync
from embedsync.db import Connection, connect, queries, translated
from embedsync.encoding import artefact, catalogue, model
from embedsync.encoding.budget import BatchBudget, BudgetMemory, first_guess
from embedsync.encoding.dispatch import Dispatcher
from embedsync.encoding.machine import gpu_memory
from embedsync.errors import DatabaseError, ModelError
from embedsync.keeper import Keeper
from embedsync.listener import Listener, Waker
from embedsync.progress import Snapshot
from embedsync.records import Encoder
from embedsync.sdnotify import notify, watchdog_seconds
from embedsync.source import Model

if TYPE_CHECKING:
    from embedsync.server import EmbeddingServer

_ACTIVITY_SECONDS = 5.0
_STUCK_SECONDS = 120.0  # a thread without a sign of life for this long: let the supervisor restart us


def load_encoder(settings: Settings, name: str) -> model.OnnxEncoder:
    """The exported model called `name`, on the configured device. Raises ModelError."""
    folder = settings.daemon.models_dir or artefact.default_models_dir()
    card = catalogue.find(name, settings.daemon.catalogue_dirs)
    return model.load(folder, card, settings.daemon.device, settings.daemon.threads, settings.daemon.precision)


def describe_model(settings: Settings, name: str) -> Model:
    """What the database side needs of an exported model, without loading its graph. Raises ModelError."""
    folder = settings.daemon.models_dir or artefact.default_models_dir()
    card = catalogue.find(name, settings.daemon.catalogue_dirs)
    opened = artefact.Artefact.open(folder, card)
    return Model(card.name, card.dimension, card.max_tokens, opened.fingerprint(settings.daemon.precision or "fp32"))


def open_dispatcher(settings: Settings, name: str, encoder: Encoder) -> Dispatcher:
    """A dispatcher whose batch size is as configured, as it was found before a restart, or a first guess."""
    if settings.daemon.batch_tokens:
        return Dispatcher(encoder, BatchBudget(settings.daemon.batch_tokens, fixed=True))
    known = budget_memory(settings).recall(name, encoder.device)
    memory = gpu_memory(encoder.device)
    guess = first_guess(memory.free if memory else None)
    return Dispatcher(encoder, BatchBudget(known.size or guess, ceiling=known.ceiling))


def budget_memory(settings: Settings) -> BudgetMemory:
    """What was found out about batch sizes before."""
    return BudgetMemory(settings.daemon.models_dir or artefact.default_models_dir())


def open_server(settings: Settings, address: str, dispatchers: Mapping[str, Dispatcher]) -> "EmbeddingServer":
    """The endpoint for these models, not yet started. Raises ServerError."""
    from embedsync.server import EmbeddingServer, Served  # only who serves needs the packages, and the time, of a server

    dirs = settings.daemon.catalogue_dirs
    models = {name: Served(dispatcher, catalogue.find(name, dirs).matryoshka) for name, dispatcher in dispatchers.items()}
    return EmbeddingServer(address, models)


def serve(settings: Settings, syncs: tuple[Sync, ...]) -> None:
    """Serve the models of these syncs, and nothing else, until SIGTERM or SIGINT. Raises ModelError, ServerError."""
    assert settings.daemon.serve is not None
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    names = dict.fromkeys(sync.model for sync in syncs)
    dispatchers = {name: open_dispatcher(settings, name, load_encoder(settings, name)) for name in names}
    server = open_server(settings, settings.daemon.serve, dispatchers)
    server.start()
    notify("READY=1\nSTATUS=serving")
    stopping.wait()
    notify("STOPPING=1")
    server.stop()
    for dispatcher in dispatchers.values():
        dispatcher.stop(timeout=2.0)


class Service:
    """One worker. `run` returns when it is told to stop, or with `once` when every row is fresh."""

    def __init__(
        self, settings: Settings, syncs: tuple[Sync, ...], *, once: bool = False,
        on_tick: Callable[[list[Keeper]], None] = lambda keepers: None, tick_seconds: float = 5.0,
        load: Callable[[Settings, str], Encoder] = load_encoder,
    ) -> None:  # fmt: skip
        sys.setswitchinterval(0.001)  # a live change must not wait for another thread's turn to end
        self._settings = settings
        self._once = once
        self._load = load
        self._on_tick = on_tick
        self._tick_seconds = tick_seconds
        self._waker = Waker()
        self._stopping = threading.Event()
        self._dispatchers: dict[str, Dispatcher] = {}
        self._memory = budget_memory(settings)
        self.keepers: list[Keeper] = []
        self.device = "cpu"
        for sync in syncs:
            try:
                self._keep(sync)
            except ModelError as error:
                # One bad model must not keep the other tables from being fresh.
                if once or len(syncs) == 1:
                    raise
                logger.error("sync {}: {}", sync.name, error)
        if not self.keepers:
            raise ModelError("run", "any sync", "none of their models could be loaded", "See the errors above.")
        address = None if once else settings.daemon.serve
        self._server = open_server(settings, address, self._dispatchers) if address else None
        self._watchdog = watchdog_seconds()
        self._activity: Connection | None = None
        self._shown: dict[str, Snapshot] = {}

    def run(self) -> None:
        """Serve until stopped. Raises EmbedsyncError for what needs somebody's help before anything can run."""
        if self._server is not None:
            self._server.start()
        scheduler = self._schedule()
        backoff = Backoff()
        try:
            while not self._stopping.is_set():
                try:
                    self._serve(backoff)
                except DatabaseError as error:
                    if self._once or not error.retryable:
                        raise
                    delay = backoff.next_delay()
                    self._ping()  # a server that is away is waited for; that is no reason to be killed
                    logger.warning("{} (next attempt in {:.1f} s)", error, delay)
                    self._stopping.wait(delay)
        finally:
            notify("STOPPING=1")
            scheduler.shutdown(wait=False)
            if self._server is not None:
                self._server.stop()
            for keeper in self.keepers:
                keeper.stop(self._settings.daemon.shutdown_seconds)
            self._keep_activity()
            for name, dispatcher in self._dispatchers.items():
                self._memory.keep(name, dispatcher.encoder.device, dispatcher.budget)
                dispatcher.stop(timeout=2.0)

    def stop(self) -> None:
        """Drain what is under way and return from `run`."""
        self._stopping.set()
        self._waker.wake()

    def handle_signals(self) -> None:
        """First SIGTERM or SIGINT drains within a bound, the second ends at once; nothing is lost either way."""

        def on_signal(number: int, frame: FrameType | None) -> None:
            if self._stopping.is_set():
                os._exit(128 + number)
            logger.info("{}: finishing what is under way (again to stop at once)", signal.Signals(number).name)
            self.stop()

        signal.signal(signal.SIGTERM, on_signal)
        signal.signal(signal.SIGINT, on_signal)

    def _keep(self, sync: Sync) -> None:
        if sync.model not in self._dispatchers:
            encoder = self._load(self._settings, sync.model)
            self.device = encoder.device
            self._dispatchers[sync.model] = open_dispatcher(self._settings, sync.model, encoder)
            logger.info("model {} on {}", sync.model, encoder.device)
        dispatcher = self._dispatchers[sync.model]
        encoder = dispatcher.encoder
        described = Model(sync.model, encoder.dimension, encoder.max_tokens, encoder.fingerprint)
        self.keepers.append(Keeper(sync, described, dispatcher, self._settings, once=self._once))

    def _serve(self, backoff: Backoff) -> None:
        """One life of the listener's connection: LISTEN first, then look at everything."""
        listener = Listener(self._settings.database.direct, self._waker)
        try:
            applied = migrations.migrate(listener.connection)
            if applied:
                logger.info("migrated: {}", ", ".join(applied))
            by_name = {keeper.sync.name: keeper for keeper in self.keepers}
            ready = False
            while not self._stopping.is_set():
                for keeper in self.keepers:
                    keeper.advance(listener)
                if not ready:
                    backoff.reset()
                    notify("READY=1\nSTATUS=listening")
                    ready = True
                self._check_devices()
                self._ping()
                self._on_tick(self.keepers)
                if self._once and all(keeper.is_fresh for keeper in self.keepers):
                    return self.stop()
                for name in listener.wait(self._patience()):
                    rung = by_name.get(name)
                    if rung and rung.pipeline:
                        rung.pipeline.wake()
        finally:
            if not self._stopping.is_set() or listener.connection.broken:
                for keeper in self.keepers:
                    keeper.lose()
            else:
                deadline = time.monotonic() + self._settings.daemon.shutdown_seconds  # of all together
                for keeper in self.keepers:
                    keeper.stop(max(0.0, deadline - time.monotonic()))
            listener.close()

    def _check_devices(self) -> None:
        """End for the supervisor to start another process, where this one cannot encode any more. Raises DeviceError."""
        for dispatcher in self._dispatchers.values():
            if dispatcher.lost is not None:
                self._stopping.set()  # so that what is encoded is written on the way out
                raise dispatcher.lost

    def _patience(self) -> float:
        """Seconds until something is due without news."""
        due = [keeper.seconds_until_due() for keeper in self.keepers if keeper.seconds_until_due() > 0]
        return max(0.01, min([self._tick_seconds, *due, *([self._watchdog / 3] if self._watchdog else [])]))

    def _ping(self) -> None:
        """Tell the watchdog that the pipelines move; when one does not, say nothing and be restarted."""
        if all(keeper.pipeline is None or keeper.pipeline.beat() < _STUCK_SECONDS for keeper in self.keepers):
            notify("WATCHDOG=1")

    def _schedule(self) -> BackgroundScheduler:
        scheduler = BackgroundScheduler(
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}, timezone="UTC"
        )
        sweep = self._settings.daemon.sweep_seconds
        scheduler.add_job(self._sweep, "interval", seconds=sweep, jitter=sweep / 10, id="sweep")
        scheduler.add_job(self._keep_activity, "interval", seconds=_ACTIVITY_SECONDS, id="activity")

        def on_error(event: JobExecutionEvent) -> None:
            logger.warning("housekeeping {}: {}", event.job_id, event.exception)

        scheduler.add_listener(on_error, EVENT_JOB_ERROR)
        scheduler.start()
        return scheduler

    def _sweep(self) -> None:
        """A notification is a hint, this is the guarantee."""
        for keeper in self.keepers:
            if keeper.pipeline:
                keeper.pipeline.wake()

    def _keep_activity(self) -> None:
        """Write what was measured, if anything moved since the last time."""
        for name, dispatcher in self._dispatchers.items():
            self._memory.keep(name, dispatcher.encoder.device, dispatcher.budget)
        for keeper in self.keepers:
            shown = keeper.progress.snapshot()
            if not shown.done or shown == self._shown.get(keeper.sync.name):
                continue
            self._shown[keeper.sync.name] = shown
            keeper.dispatcher.measure()
            try:
                if self._activity is None or self._activity.closed:
                    self._activity = connect(self._settings.database.url, "activity")
                with translated("write", "the activity"):
                    self._activity.execute(queries("status")["measured"], self._measured(keeper, shown))
            except DatabaseError as error:
                logger.debug("{}", error)

    def _measured(self, keeper: Keeper, shown: Snapshot) -> dict[str, object]:
        memory = keeper.dispatcher.memory
        return {
            "sync": keeper.sync.name,
            "worker": f"{socket.gethostname()}:{os.getpid()}",
            "device": keeper.dispatcher.encoder.device,
            "rows_per_second": shown.rows_per_second,
            "rows_written": shown.done,
            "texts_truncated": shown.truncated,
            "lag_p50_ms": shown.lag_p50_ms,
            "lag_p99_ms": shown.lag_p99_ms,
            "last_error": keeper.last_error,
            "batch_tokens": keeper.dispatcher.budget.settled,
            "device_memory_used_bytes": memory and int(memory.used * 1e9),
            "device_memory_total_bytes": memory and int(memory.total * 1e9),
        }
