"""How many padded tokens a device's memory is known to hold, and for how long that counts."""

import time
from dataclasses import dataclass

_FIRST_SECONDS = 300
_MOST_SECONDS = 86_400


@dataclass(frozen=True)
class Ceiling:
    """What memory ran out for, `at` seconds since 1970, counts for some `seconds`: others may have had it.

    Where more is tried after that, in vain, it counts twice as long as before, up to a day.
    """

    padded: int
    at: int
    seconds: int = _MOST_SECONDS

    @property
    def is_past(self) -> bool:
        """Whether that is over, or was noted by a clock that was ahead."""
        return not 0 <= time.time() - self.at <= self.seconds

    def lower(self, padded: int) -> "Ceiling":
        """Memory has run out again while it counts."""
        return Ceiling(min(self.padded, padded), int(time.time()), self.seconds)


def found(padded: int, last: Ceiling | None) -> Ceiling:
    """Memory has run out; `last` is the ceiling that was there before, if one was."""
    now = int(time.time())
    is_again = last is not None and 0 <= now - last.at <= 2 * last.seconds
    seconds = min(_MOST_SECONDS, 2 * last.seconds) if last is not None and is_again else _FIRST_SECONDS
    return Ceiling(padded, now, seconds)
