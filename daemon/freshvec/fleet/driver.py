"""The process that a fleet on several machines belongs to: it asks, shows, hands signals on, and ends it."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from loguru import logger

from freshvec.config import Settings, Sync
from freshvec.errors import DatabaseError, FreshvecError
from freshvec.fleet.actor import Declared
from freshvec.fleet.child import HOPELESS, code_of_all, ending
from freshvec.fleet.gathered import gathered
from freshvec.fleet.remote import Actor, RemoteWorker
from freshvec.fleet.room import bearable, check
from freshvec.health.process import ProcessNow
from freshvec.worker import signals
from freshvec.worker.rereading import tell_untaken
from freshvec.worker.sdnotify import ask_for_time, notify, show, watchdog_seconds

_COUNT_SECONDS = 30.0  # between looks whether there are more machines
_GRACE_SECONDS = 10.0  # beyond what a worker may take to stop
_ALIVE_SECONDS = 60.0


@dataclass(frozen=True)
class Places:
    """How many workers the machines have room for now, and the CPU threads of each."""

    count: int
    threads: int


class Cluster(Protocol):
    """The engine (fleet/on_ray.py)."""

    def connect(self) -> None:
        """Raises FreshvecError where it cannot be reached."""

    def places(self) -> Places: ...

    def begin(self, number: int, threads: int) -> Actor: ...

    def close(self) -> None: ...


class Driver:
    """`run` returns when it is told to stop, or with `once` when every worker is done.

    The workers belong to this process: when it ends, however it does, the engine ends them.
    """

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        syncs: tuple[Sync, ...],
        *,
        workers: int | None,
        once: bool = False,
        reload: Callable[[], tuple[Settings, tuple[Sync, ...]]] | None = None,
        is_asked: threading.Event | None = None,
    ) -> None:
        """`workers`: None for as many as the machines have room for and Postgres bears. `is_asked`: set where
        `reload` was asked for before this was here."""
        self._cluster = cluster
        self._given = self._settings = settings  # `_settings` become those of its workers
        self._syncs = syncs
        self._wanted = workers
        self._once = once
        self._read_again = reload
        self._version = 0
        self._workers: list[RemoteWorker] = []
        self._stopping = threading.Event()
        self._is_asked = is_asked or threading.Event()
        self._deadline: float | None = None  # after which those that do not stop are ended
        self._turned_at = time.monotonic()
        self._count_due = 0.0
        self._told = ""
        self._is_ready = False

    def now(self) -> ProcessNow:
        """What all workers know of themselves. May be called on any thread."""
        known = [worker.process for worker in list(self._workers) if worker.process is not None]
        return gathered(known, is_alive=time.monotonic() - self._turned_at < _ALIVE_SECONDS)

    def run(self) -> int:
        """Returns 0, or the exit code of a worker that failed for good. Raises FreshvecError."""
        if self._wanted is not None:
            check(self._settings.database.url, self._wanted)
        self._cluster.connect()
        try:
            signals.handle(self.stop, self._is_asked.set, self._stopping)
            while not self._is_over():
                self._turn()
        finally:
            for worker in self._workers:
                worker.close()
            self._cluster.close()
        return code_of_all(worker.code for worker in self._workers)

    def stop(self) -> None:
        """Let every worker write what it has read, and end."""
        self._stopping.set()

    def _is_over(self) -> bool:
        if self._deadline is not None and time.monotonic() > self._deadline:
            return True
        has_begun = bool(self._workers) or self._stopping.is_set()
        return has_begun and all(worker.is_over for worker in self._workers)

    def _turn(self) -> None:
        self._turned_at = time.monotonic()
        if self._turned_at >= self._count_due and not self._stopping.is_set():
            self._fill_workers()
            self._count_due = self._turned_at + _COUNT_SECONDS
        if self._is_asked.is_set():
            self._take_up()
        declared = Declared(self._version, self._settings, self._syncs)
        for worker in self._workers:
            worker.advance(declared)
        self._end_together()
        self._tell()
        if self._deadline is None:
            self._stopping.wait(0.5)
        else:
            time.sleep(0.1)  # each look is a call to another machine

    def _fill_workers(self) -> None:
        places = self._cluster.places()
        wanted = self._wanted if self._wanted is not None else self._bearable(places.count)
        if not self._version:
            self._version = 1
            self._settings = _for_workers(self._settings, places.threads)
        for number in range(len(self._workers), wanted):
            actor = self._cluster.begin(number, self._settings.daemon.threads or 1)
            self._workers.append(RemoteWorker(number, actor, once=self._once))
            logger.info("{} of {} workers is placed", self._workers[-1].name, wanted)

    def _bearable(self, count: int) -> int:
        """So many, or fewer where Postgres has no sessions for more; those that run have theirs already."""
        there = len(self._workers)
        if count <= there:
            return there
        try:
            more, _ = bearable(self._settings.database.url)
        except DatabaseError as error:
            logger.debug("{}", error)  # the first one waits for it
            return max(there, 1)
        return max(1, min(count, there + more))

    def _take_up(self) -> None:
        """What the file declares now goes to every worker with its next report."""
        self._is_asked.clear()
        if self._read_again is None:
            return
        try:
            read, self._syncs = self._read_again()
        except FreshvecError as error:
            logger.error("the file is not taken up, the old one stays: {}", error)
            return
        tell_untaken(self._given, read)
        self._version += 1

    def _end_together(self) -> None:
        hopeless = next((worker for worker in self._workers if worker.code in HOPELESS), None)
        if hopeless is not None and not self._stopping.is_set():
            logger.error("{} {}: all workers end", hopeless.name, ending(hopeless.code or 0))
            self.stop()
        if self._stopping.is_set() and self._deadline is None:
            notify("STOPPING=1")
            self._deadline = time.monotonic() + self._settings.daemon.shutdown_seconds + _GRACE_SECONDS
            for worker in self._workers:
                worker.stop()

    def _tell(self) -> None:
        running = sum(worker.process is not None for worker in self._workers)
        status = f"{running} of {len(self._workers)} workers run"
        if status != self._told:
            self._told = status
            show(status)
        if running == len(self._workers) and running and not self._is_ready:
            self._is_ready = True
            logger.info("{} workers run", running)
            notify("READY=1")
        if not self._is_ready:
            ask_for_time()  # for machines that have no room yet, while others work already
        if watchdog_seconds() is not None:
            notify("WATCHDOG=1")


def _for_workers(settings: Settings, threads: int) -> Settings:
    """They share, serve nothing, and have so many threads each unless the file says how many."""
    given: dict[str, object] = {"share": True, "serve": None, "threads": settings.daemon.threads or threads}
    web = settings.web.model_copy(update={"address": "off"})
    return settings.model_copy(update={"daemon": settings.daemon.model_copy(update=given), "web": web})
