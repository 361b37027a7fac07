"""One worker on another machine: asked how it is, listened to, and begun again with growing pauses."""

import time
from typing import Protocol

from loguru import logger

from freshvec.backoff import Backoff
from freshvec.fleet.actor import Declared, Report
from freshvec.fleet.child import HOPELESS, MOST_ATTEMPTS, SOUND_SECONDS, ending
from freshvec.fleet.member import name_of
from freshvec.health.process import ProcessNow

_ANSWER_SECONDS = 20.0  # without an answer for so long, it is said once


class Away(Exception):
    """The worker's process is gone, or cannot be reached; the engine begins it again by itself, or cannot."""

    def __init__(self, reason: str, *, is_for_good: bool) -> None:
        self.is_for_good = is_for_good
        super().__init__(reason)


class Actor(Protocol):
    """A worker as the engine has it (fleet/on_ray.py)."""

    def ask(self, life: str, since: int) -> None:
        """Ask for its report; the answer comes later."""

    def answer(self) -> Report | None:
        """The report, if it is there by now. Raises Away."""

    def take_up(self, declared: Declared) -> None: ...

    def stop(self) -> None: ...

    def restart(self) -> None:
        """End its process and begin another one, wherever there is room."""

    def close(self) -> None:
        """End it, whatever it is at."""


class RemoteWorker:
    """`code` is its exit code, once it is not to be begun any more."""

    def __init__(self, number: int, actor: Actor, *, once: bool) -> None:
        self.name = name_of(number)
        self.process: ProcessNow | None = None  # as it last reported
        self.code: int | None = None
        self._actor = actor
        self._once = once
        self._life, self._line = "", 0
        self._asked_at: float | None = None  # None while nothing is asked
        self._due: float | None = None  # when to begin it again, where it is to be
        self._begun_at = time.monotonic()
        self._backoff = Backoff(first=1.0, cap=60.0)
        self._is_waited_for = False
        self._is_stopping = False

    @property
    def is_over(self) -> bool:
        return self.code is not None

    def advance(self, declared: Declared) -> None:
        """Take up what it has said, and ask again."""
        if self.is_over:
            return
        if self._due is not None:
            if time.monotonic() < self._due:
                return
            self._due, self._begun_at = None, time.monotonic()
            self._actor.restart()
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            self._actor.ask(self._life, self._line)
        try:
            report = self._actor.answer()
        except Away as away:
            self._lost(away)
            return
        if report is not None:
            self._take(report, declared)
        elif time.monotonic() - self._asked_at > _ANSWER_SECONDS:
            self._wait("it does not answer: its machine is busy or gone, or none has room for it")

    def stop(self) -> None:
        """Let it write what it has read. One that has not begun, or is away, is ended."""
        self._is_stopping = True
        if self.is_over:
            return
        if self.process is None or self._due is not None:
            self.code = 0
            return
        self._actor.stop()

    def close(self) -> None:
        self._actor.close()

    def _take(self, report: Report, declared: Declared) -> None:
        self._asked_at = None
        self.process = report.process
        if self._is_waited_for:
            self._is_waited_for = False
            logger.info("{} is there", self.name)
        for line in report.lines:
            logger.bind(worker=self.name).log(line.level, "{}", line.text)
        before = self._line if report.life == self._life else 0
        self._life, self._line = report.life, report.lines[-1].number if report.lines else before
        if report.code is not None:
            self._ended(report.code)
        elif report.process is not None and not report.process.is_alive:
            logger.error("{}: its main loop does not turn, or a pipeline does not move", self.name)
            self._ended(1)
        elif report.version != declared.version:
            self._actor.take_up(declared)

    def _lost(self, away: Away) -> None:
        self._asked_at = None
        self._wait(str(away))
        if self._is_stopping:
            self.code = 0  # there is nothing to wait for
        elif away.is_for_good:
            self._ended(1)

    def _wait(self, reason: str) -> None:
        """It is away; said once until it is there again."""
        self.process = None
        if not self._is_waited_for:
            self._is_waited_for = True
            logger.warning("{} is away: {}", self.name, reason)

    def _ended(self, code: int) -> None:
        self.process = None
        if time.monotonic() - self._begun_at > SOUND_SECONDS:
            self._backoff.reset()
        is_last = self._once and (code == 0 or self._backoff.attempts >= MOST_ATTEMPTS)
        if self._is_stopping or code in HOPELESS or is_last:
            self.code = code
            self._actor.close()
            if is_last and code and not self._is_stopping:
                logger.error("{} {}, time after time: it is not begun again", self.name, ending(code))
            return
        delay = self._backoff.next_delay()
        self._due = time.monotonic() + delay
        logger.warning("{} {}; it is begun again in {:.1f} s", self.name, ending(code), delay)
