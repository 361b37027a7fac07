"""The worker: the composition root. Models, keepers, scheduler, signals, and the loop that waits for news."""

import sys
import threading
import time
from collections.abc import Callable

from loguru import logger

from freshvec.backoff import Backoff
from freshvec.capture.bell import DDL, LET_GO, Listener, Waker
from freshvec.config import Settings, Sync
from freshvec.db import translated
from freshvec.encoding.dispatch import Dispatcher
from freshvec.errors import DatabaseError, FreshvecError
from freshvec.pipeline.pressure import SECONDS_BETWEEN_LOOKS, Pressure
from freshvec.pipeline.resources import Resources
from freshvec.records import Encoder
from freshvec.schema import migrations
from freshvec.worker import signals
from freshvec.worker.activity import Activity
from freshvec.worker.endpoint import Endpoint
from freshvec.worker.following import Following
from freshvec.worker.headline import Headline
from freshvec.worker.housekeeping import Housekeeping
from freshvec.worker.keeper import Keeper
from freshvec.worker.keepers import Keepers
from freshvec.worker.owning import Owning
from freshvec.worker.pulse import Pulse
from freshvec.worker.rereading import tell_untaken
from freshvec.worker.sdnotify import ask_for_time, notify, show
from freshvec.worker.sweeps import Sweeps

_ACTIVITY_SECONDS = 5.0
_MOST_ATTEMPTS = 10  # in a row: for a minute and a half or so
_GRACE_SECONDS = 15.0  # beyond those to shut down in: for requests under way, and what is noted last


class Worker:
    """One worker. `run` returns when it is told to stop, or with `once` when every row is fresh.

    `load` gives a model's encoder, `endpoint` makes what answers beside it, `reload` reads the file again:
    settings as a restart would have them, and syncs.
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
        endpoint: Callable[["Worker"], Endpoint] | None = None,
        reload: Callable[[], tuple[Settings, tuple[Sync, ...]]] | None = None,
    ) -> None:
        sys.setswitchinterval(0.001)  # a live change must not wait for another thread's turn to end
        self._settings = settings
        self._once = once
        self._on_tick = on_tick
        self._tick_seconds = tick_seconds
        self._waker = Waker()
        self.pressure = Pressure(settings.daemon.pause_at_lag_seconds)
        self._resources = Resources(settings, self.pressure)
        self._owning = Owning(is_shared=settings.daemon.share)
        self._stopping = threading.Event()
        self._reload = reload
        self._reloading = threading.Event()
        self.reconnects = 0
        self._has_listened = False
        self.pulse = Pulse()
        self._following = Following(settings.database.url, syncs)
        self._keepers = Keepers(settings, load, self._resources, self._waker.wake, once=once)
        self._keepers.begin(self._following.at_start())
        self._is_look_due = False  # at what is to be run
        self._sweeps = Sweeps(settings.daemon.sweep_seconds)
        self._housekeeping = Housekeeping()
        self._activity = Activity(settings, self.pressure)
        self._headline = Headline()
        self._file_fault = ""  # why the file was not taken up when it was read again
        self._endpoint = endpoint(self) if endpoint else None

    @property
    def keepers(self) -> list[Keeper]:
        return self._keepers.all

    @property
    def dispatchers(self) -> dict[str, Dispatcher]:
        return self._keepers.dispatchers

    @property
    def shown_models(self) -> dict[str, str]:
        """Of each declared sync the model whose vectors its view shows."""
        return self._following.models

    @property
    def left_out(self) -> dict[str, str]:
        """Syncs whose models could not be loaded, and why."""
        return self._keepers.left_out

    def run(self) -> None:
        """Work until stopped. Raises FreshvecError for what needs somebody's help before anything can run."""
        if self._endpoint is not None:
            self._endpoint.start()
        self._begin_housekeeping()
        backoff = Backoff()
        try:
            while not self._stopping.is_set():
                try:
                    self._listen_once(backoff)
                except DatabaseError as error:
                    if not error.retryable or (self._once and self._is_in_vain(backoff)):
                        raise
                    self.reconnects += 1
                    delay = backoff.next_delay()
                    self.ping()  # a server that is away is waited for; that is no reason to be killed
                    ask_for_time()
                    show(f"waiting for the database: {error}")
                    logger.warning("{} (next attempt in {:.1f} s)", error, delay)
                    self._stopping.wait(delay)
        finally:
            notify("STOPPING=1")
            self._housekeeping.stop()
            if self._endpoint is not None:
                self._endpoint.stop()
            for keeper in self.keepers:
                keeper.stop(self._settings.daemon.shutdown_seconds)
            self.housekeep()
            self._activity.close()
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
        seconds = self._settings.daemon.shutdown_seconds + _GRACE_SECONDS
        signals.handle(self.stop, self.reload, self._stopping, seconds=seconds)

    def reload(self) -> None:
        self._reloading.set()
        self._waker.wake()

    def _take_up(self, listener: Listener) -> None:
        """What the file declares now: syncs gone or changed end, new ones begin, the others go on."""
        self._reloading.clear()
        if self._reload is None:
            return
        try:
            read, syncs = self._reload()
        except FreshvecError as error:
            logger.error("the file is not taken up, the old one stays: {}", error)
            self._file_fault = str(error)
            return
        self._file_fault = ""
        tell_untaken(self._settings, read)
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        self._following.declared = syncs
        self._keepers.try_again()
        try:
            self._follow(listener)
        except DatabaseError:
            self._reloading.set()  # the listener is lost: the next one goes on with it
            raise
        logger.info("the file was read again; syncs: {}", ", ".join(sorted(s.name for s in syncs)) or "none")
        notify("READY=1")

    def _follow(self, listener: Listener) -> None:
        """Run what is to be run now: a swap may have begun another edition, or ended one."""
        self._is_look_due = False
        self._keepers.change_to(self._following.look(listener.connection), listener)
        self._following.take_away(listener.connection)

    def _listen_once(self, backoff: Backoff) -> None:
        """One life of the listener's connection: LISTEN first, then look at everything."""
        is_leased = self._settings.daemon.share
        listener = Listener(self._settings.database.url, self._waker, is_leased=is_leased)
        self._owning.look_now()
        self._has_listened = self._is_look_due = True
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
                    left = max(0.0, deadline - time.monotonic())
                    keeper.leave(listener, left) if keeper.is_sharing else keeper.stop(left)
            listener.close()

    def _is_in_vain(self, backoff: Backoff) -> bool:
        """Whether one that is to work once tries no more to get its connection back, if it ever had one."""
        return not self._has_listened or backoff.attempts >= _MOST_ATTEMPTS

    def _keep(self, listener: Listener, backoff: Backoff) -> None:
        """Advance every sync, and wait for news or for what is due, until told to stop."""
        is_ready = False
        while not self._stopping.is_set():
            if self._sweeps.take():
                self._sweep()
            if self._reloading.is_set():
                self._take_up(listener)
            elif self._is_look_due:
                self._follow(listener)
            by_name = {keeper.sync.name: keeper for keeper in self.keepers}
            self._owning.tend(listener, self.keepers)
            for keeper in self.keepers:
                keeper.advance(listener)
            if not is_ready:
                backoff.reset()
                notify("READY=1\nSTATUS=beginning")
                is_ready = True
            self._check_devices()
            self.ping()
            self._on_tick(self.keepers)
            if self._once and all(keeper.is_done for keeper in self.keepers):
                self.stop()
                return
            for name, times in listener.wait(self._patience()).items():
                if name == DDL:
                    self.sweep()
                elif name in by_name:
                    by_name[name].rang(times, listener)
                elif name.startswith(LET_GO) and name.removeprefix(LET_GO) in by_name:
                    by_name[name.removeprefix(LET_GO)].poll()

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
        watchdog = [self.pulse.watchdog / 3] if self.pulse.watchdog else []
        others = [self._owning.patience(self.keepers), self._sweeps.patience()]
        return max(0.01, min([self._tick_seconds, *others, *due, *watchdog]))

    def ping(self) -> None:
        """Show a sign of life, if every pipeline moves."""
        self.pulse.feel(self.keepers)

    def _begin_housekeeping(self) -> None:
        self._housekeeping.every(_ACTIVITY_SECONDS, self.housekeep, "activity")
        if self.pressure.is_asked_for:
            self._housekeeping.every(SECONDS_BETWEEN_LOOKS, self._activity.feel_pressure, "pressure")
        self._housekeeping.start()

    def sweep(self) -> None:
        """Have the main loop look at everything now."""
        self._sweeps.ask()
        self._waker.wake()

    def _sweep(self) -> None:
        """A notification is a hint, this is the guarantee."""
        self._is_look_due = True
        self._housekeeping.tend()
        for keeper in self.keepers:
            keeper.sweep()

    def housekeep(self) -> None:
        """Keep what was found out about batch sizes, and what was measured."""
        self._keepers.keep_budgets()
        self._activity.keep(self.keepers)
        self._activity.look(
            lambda connection: self._headline.tell(connection, self.keepers, self.left_out, self._file_fault)
        )
