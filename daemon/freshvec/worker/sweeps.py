"""When a worker sweeps: by the monotonic clock, so that nothing done to the wall clock puts a sweep off."""

import random
import time

_JITTER = 0.1  # of the time between sweeps, so that many workers do not sweep at once


class Sweeps:
    """The main loop asks whether one is due; any thread may ask for one."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due = 0.0
        self._rest()

    def ask(self) -> None:
        """Be due now."""
        self._due = 0.0

    def take(self) -> bool:
        """Whether one is due, to be done now; the next one is due in its time."""
        if time.monotonic() < self._due:
            return False
        self._rest()  # first: one that is asked for meanwhile is another
        return True

    def patience(self) -> float:
        """Seconds until one is due."""
        return max(0.0, self._due - time.monotonic())

    def _rest(self) -> None:
        self._due = time.monotonic() + self._seconds * random.uniform(1 - _JITTER, 1 + _JITTER)
