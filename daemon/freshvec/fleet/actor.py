"""The side of a worker that runs inside of an actor: a `Worker` on a thread, asked and told by its driver."""

import threading
from dataclasses import dataclass
from uuid import uuid4

from loguru import logger

from freshvec import logs
from freshvec.config import Settings, Sync
from freshvec.errors import FreshvecError
from freshvec.fleet.member import name_of
from freshvec.health.process import ProcessNow, look
from freshvec.logs import Line
from freshvec.worker.worker import Worker


@dataclass(frozen=True)
class Declared:
    """What is to be kept fresh, and how. `version` is 1 at first, and rises when the file is read again."""

    version: int
    settings: Settings
    syncs: tuple[Sync, ...]


@dataclass(frozen=True)
class Report:
    """How a worker is. `life` names its process, `version` what it was told, 0 where that is nothing yet;
    `code` is its exit code once it has ended."""

    life: str
    version: int
    process: ProcessNow | None
    code: int | None
    lines: tuple[Line, ...]


class WorkerActor:
    """On a thread, since the actor's own answers its driver meanwhile.

    A process inside of the actor's would be one more that could outlive it, and everything would have to be
    told to it by files and variables. Here settings come as a value, and with the actor all ends.
    """

    def __init__(self, number: int, *, once: bool) -> None:
        """It begins with the first declaration: what an actor is made with, its engine keeps and may show,
        and the database's URL may have a password in it."""
        self._number = number
        self._once = once
        self._life = uuid4().hex
        self._declared: Declared | None = None
        self._code: int | None = None
        self._worker: Worker | None = None
        self._stopping = threading.Event()

    def report(self, life: str, since: int) -> Report:
        """How it is, with what was logged after line `since` of that life, or in this one at all."""
        worker = self._worker
        process = look(worker) if worker is not None and self._code is None else None
        version = self._declared.version if self._declared is not None else 0
        heard = since if life == self._life else 0
        lines = tuple(line for line in logs.tail() if line.number > heard)
        return Report(self._life, version, process, self._code, lines)

    def take_up(self, declared: Declared) -> None:
        """Begin with what is declared; later on, what `run` does at SIGHUP."""
        is_first, self._declared = self._declared is None, declared
        if is_first:
            settings = declared.settings
            for url in (settings.database.url, settings.database.replica):
                logs.hide_url(url.get_secret_value())
            logs.speak_for(name_of(self._number))
            logs.configure(settings.daemon.log_level, settings.daemon.log_format)
            threading.Thread(target=self._run, args=(declared,), name="worker", daemon=True).start()
        elif self._worker is not None:
            self._worker.reload()

    def stop(self) -> None:
        """Let it write what it has read, and end; returns at once."""
        self._stopping.set()
        if self._worker is not None:
            self._worker.stop()

    def _run(self, declared: Declared) -> None:
        try:
            self._code = self._work(declared)
        except FreshvecError as error:
            logger.error("{}", error)
            self._code = error.exit_code
        except Exception as error:
            logger.exception("this should not have happened: {}", type(error).__name__)
            self._code = 1

    def _work(self, declared: Declared) -> int:
        """Returns the exit code. Raises FreshvecError."""
        worker = Worker(declared.settings, declared.syncs, once=self._once, reload=self._again)
        self._worker = worker
        if self._stopping.is_set():
            worker.stop()  # while its models were loaded
        worker.run()
        return int(self._once and not all(keeper.was_fresh for keeper in worker.keepers))

    def _again(self) -> tuple[Settings, tuple[Sync, ...]]:
        assert self._declared is not None
        return self._declared.settings, self._declared.syncs
