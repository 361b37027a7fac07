"""How a reader learns of changes: it is rung, or it polls while ringing would cost writers too much."""

import math
import time
from collections import deque
from collections.abc import Callable

_SHORTEST, _LONGEST = 0.02, 0.25  # seconds between looks
_WINDOW_SECONDS = 0.1
_FEW = 4  # rows changed in that time, up to which the reader wants to be rung: one who edits and waits


class Polling:
    """The pauses of one reader. It polls while nobody rings; `on_want` is called when few rows change."""

    def __init__(self, on_want: Callable[[], None]) -> None:
        self.is_rung = False  # set by the main loop, before it wakes the reader
        self.wants_bell = False
        self._on_want = on_want
        self._found_at = 0.0
        self._recent: deque[tuple[float, int]] = deque()
        self.begin()

    def begin(self) -> None:
        """Nobody rings any more: it costs the writers too much."""
        self.is_rung = False
        self.found(_FEW + 1)

    def found(self, rows: int) -> None:
        """So many changes were to be read."""
        self._found_at = time.monotonic()
        self._recent.append((self._found_at, rows))
        self._forget(self._found_at)
        self.wants_bell = False

    def pause(self) -> float:
        """Nothing is to be read: the seconds until the next look."""
        if self.is_rung:
            return math.inf
        now = time.monotonic()
        quiet = now - self._found_at
        self._forget(now)
        is_few = sum(rows for _, rows in self._recent) <= _FEW
        if is_few and not self.wants_bell:  # said once, until somebody has tried
            self.wants_bell = True
            self._on_want()
        return min(_LONGEST, max(_SHORTEST, quiet / 20))

    def _forget(self, now: float) -> None:
        """What is older than the window, whether anybody polls or not."""
        while self._recent and self._recent[0][0] < now - _WINDOW_SECONDS:
            self._recent.popleft()
