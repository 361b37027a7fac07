"""How a reader learns of changes: it is rung, or it polls while ringing would cost writers too much."""

import math
import time
from collections.abc import Callable

_SHORTEST, _LONGEST = 0.02, 0.25  # seconds between looks
_QUIET_SECONDS = 0.1  # without a change, after which the reader wants to be rung


class Polling:
    """The pauses of one reader. It polls while nobody rings; `on_want` is called when it has become quiet."""

    def __init__(self, on_want: Callable[[], None]) -> None:
        self.is_rung = False  # set by the main loop, before it wakes the reader
        self.wants_bell = False
        self._on_want = on_want
        self._found_at = time.monotonic()

    def found(self) -> None:
        """There was something to read."""
        self._found_at = time.monotonic()
        self.wants_bell = False

    def pause(self) -> float:
        """Nothing is to be read: the seconds until the next look."""
        if self.is_rung:
            return math.inf
        quiet = time.monotonic() - self._found_at
        if quiet >= _QUIET_SECONDS and not self.wants_bell:  # said once, until somebody has tried
            self.wants_bell = True
            self._on_want()
        return min(_LONGEST, max(_SHORTEST, quiet / 20))
