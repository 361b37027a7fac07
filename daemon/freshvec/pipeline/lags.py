"""How long changes waited, in buckets: what the database adds up over restarts."""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field

# Milliseconds; the last bucket has no bound. migrations/0002_watching.sql counts on the same ones.
BOUNDS = tuple(2.0**power for power in range(21))


@dataclass
class Lags:
    """Changes by how long they waited: `counts[i]` of at most `BOUNDS[i]` ms and of more than the bound
    before."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total_ms: float = 0.0
    longest_ms: float = 0.0

    def add(self, seconds: Iterable[float]) -> None:
        for lag in seconds:
            milliseconds = max(0.0, lag * 1000)
            self.counts[bisect_left(BOUNDS, milliseconds)] += 1
            self.total_ms += milliseconds
            self.longest_ms = max(self.longest_ms, milliseconds)

    def merge(self, other: "Lags") -> None:
        """Count those of `other` as well."""
        self.counts = [one + more for one, more in zip(self.counts, other.counts, strict=True)]
        self.total_ms += other.total_ms
        self.longest_ms = max(self.longest_ms, other.longest_ms)

    def __bool__(self) -> bool:
        return any(self.counts)
