"""Which requests for a walk are due: a walk answers only what was committed when it began.

One that the last walk left, because an open transaction relies on it, rests as long as that walk took: the
transaction may go on for hours. So does one for a queue that is full again: whoever is in the way of making
its file smaller may stay for hours, too. One for a table whose changes were noted by other rules before waits
until every transaction is over that may have written by those.
"""

import math
import time
from collections.abc import Iterable

from loguru import logger

from freshvec.capture.queue import QUEUE_FULL, REDEFINED
from freshvec.db import Session
from freshvec.source.bound import BoundSync
from freshvec.source.writers import Writers

Request = tuple[str, str]  # its id and its reason
_REST_OF_REPEATS = 1.0  # seconds at least before a walk for a request that the last one left
_PATIENCE = 1.0  # seconds that a walk waits for writers before it begins, lest it be repeated for them
LOOK_AT_FIRST, _LOOK_SECONDS = 0.02, 1.0  # between looks whether they are over


class Requests:
    """Of one sync; called on the reader's thread."""

    def __init__(self, connection: Session, bound: BoundSync) -> None:
        self._connection = connection
        self._bound = bound
        self._begun = time.monotonic()
        self._answered: list[Request] = []  # the requests that the last walk was for
        self._repeat_due = 0.0
        self._older: Writers | None = None  # once asked for
        self._waiting: set[str] = set()  # the requests that wait for these
        self._look_due = 0.0
        self._is_said = False

    def due(self, asked: Iterable[Request]) -> list[Request]:
        """Those of the requests that a walk is to begin for now."""
        asked = list(asked)
        may_answer = self._are_older_over(_redefined(asked))
        found = [request for request in asked if request[1] != REDEFINED or may_answer]
        is_left = set(found) <= set(self._answered)
        is_full_again = is_full(self._answered) and {reason for _, reason in found} == {QUEUE_FULL}
        return [] if (is_left or is_full_again) and time.monotonic() < self._repeat_due else found

    def answered_at_once(self, asked: Iterable[Request]) -> list[str] | None:
        """What a walk answers that is set to begin anyway; None where it had better wait a moment."""
        numbers = _redefined(asked)
        if self._are_older_over(numbers):
            return numbers
        return [] if time.monotonic() - self._begun > _PATIENCE else None

    def walk_begins(self, requests: Iterable[Request]) -> None:
        """A walk for these requests."""
        self._answered = list(requests)

    def walk_ends(self, seconds: float) -> None:
        """It took so long."""
        self._repeat_due = time.monotonic() + max(_REST_OF_REPEATS, seconds)

    def patience(self) -> float:
        """Seconds until another look at the requests is due without any news; infinity without one."""
        now = time.monotonic()
        dues = [self._repeat_due] if self._repeat_due > now else []
        dues += [self._look_due] if self._older is not None and self._look_due > now else []
        return min(dues, default=math.inf) - now

    def _are_older_over(self, numbers: list[str]) -> bool:
        """Whether nobody is at it any more who wrote to the table when the last of these came."""
        if not numbers:
            return True
        if self._older is None or not self._waiting.issuperset(numbers):
            self._older, self._waiting = Writers(self._connection, self._bound), set(numbers)
        now = time.monotonic()
        if now < self._look_due:
            return False
        is_over = self._older.are_over()
        if is_over:
            self._older = None
        elif now - self._begun < _PATIENCE:
            self._look_due = now + LOOK_AT_FIRST
        else:
            self._look_due = now + _LOOK_SECONDS
            self._say(self._older)
        return is_over

    def _say(self, older: Writers) -> None:
        """Whom the next walk waits for, once."""
        if not self._is_said:
            sessions = f"sessions {older.pids}" if older.pids else "prepared transactions"
            problem = "wrote to the table before it was defined so; it is walked again once they are over"
            logger.info("sync {}: {} {}", self._bound.name, sessions, problem)
        self._is_said = True


def _redefined(asked: Iterable[Request]) -> list[str]:
    """Those for which changes were noted by other rules before."""
    return [number for number, reason in asked if reason == REDEFINED]


def is_full(requests: Iterable[Request]) -> bool:
    """Whether the walk is one for a queue that is full."""
    return any(reason == QUEUE_FULL for _, reason in requests)
