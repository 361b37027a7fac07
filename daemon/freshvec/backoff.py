"""Capped, jittered delay between attempts."""

import random


class Backoff:
    """Exponential delay with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015).

    The delay is drawn below a ceiling that begins at `first` seconds and doubles up to `cap` seconds.
    """

    def __init__(self, first: float = 0.2, cap: float = 30.0) -> None:
        self._first = first
        self._cap = cap
        self.attempts = 0

    def next_delay(self) -> float:
        """Seconds to wait before the next attempt; never under half of the first delay."""
        ceiling = min(self._cap, self._first * 2.0 ** min(self.attempts, 30))
        self.attempts += 1
        return random.uniform(min(self._first, ceiling) / 2, ceiling)

    def reset(self) -> None:
        """Begin anew: the last attempt succeeded."""
        self.attempts = 0
