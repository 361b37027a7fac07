"""The last minutes of every sync, in equal steps: how many rows were written, and how long changes waited."""

import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from freshvec.pipeline.progress import Progress, Totals, percentile
from freshvec.worker.keeper import Keeper

SECONDS = 5.0  # per step
_STEPS = 180  # a quarter of an hour


@dataclass(frozen=True)
class Step:
    """What one sync did in one step. Lags are in milliseconds, None where no small change was written."""

    rows_per_second: float
    lag_p50: float | None
    lag_p99: float | None


@dataclass
class _Past:
    progress: Progress
    totals: Totals
    at: float
    steps: deque[tuple[int, Step]] = field(default_factory=lambda: deque(maxlen=_STEPS))


class History:
    """Steps are numbered from 1; `sample` ends one of all syncs. A quiet step is left out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._past: dict[str, _Past] = {}
        self.number = 0

    def sample(self, keepers: Iterable[Keeper]) -> None:
        """End a step."""
        by_name = {keeper.sync.name: keeper.progress for keeper in keepers}
        with self._lock:
            self.number += 1
            for name, progress in by_name.items():
                past = self._past.get(name)
                if past is None or past.progress is not progress:  # new, or declared otherwise
                    self._past[name] = _Past(progress, progress.totals(), time.monotonic())
                else:
                    self._end_step(past)
            for name in self._past.keys() - by_name.keys():
                del self._past[name]

    def _end_step(self, past: _Past) -> None:
        now, totals = time.monotonic(), past.progress.totals()
        rows = totals.done - past.totals.done
        if rows:
            changes = sum(totals.lags.counts) - sum(past.totals.lags.counts)
            lags = sorted(past.progress.last_lags(changes))
            rate = rows / max(now - past.at, 0.001)
            past.steps.append((self.number, Step(rate, percentile(lags, 0.5), percentile(lags, 0.99))))
        past.totals, past.at = totals, now

    def since(self, number: int) -> dict[str, list[tuple[int, Step]]]:
        """Steps after this one, by sync."""
        oldest = max(number, self.number - _STEPS)
        with self._lock:
            return {
                name: [(at, step) for at, step in past.steps if at > oldest]
                for name, past in self._past.items()
            }
