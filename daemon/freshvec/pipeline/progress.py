"""What a sync has done and how fast: counted here, shown by `backfill`, kept by `status`."""

import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from freshvec.pipeline.lags import Lags
from freshvec.pipeline.stages import Stages
from freshvec.records import Fate, Outcome

_WINDOW_SECONDS = 10.0
_LAGS_KEPT = 2000


@dataclass(frozen=True)
class Snapshot:
    """Counters since the start; lags in milliseconds over the last changes, None where there were none."""

    done: int
    encoded: int
    failed: int
    truncated: int
    rows_per_second: float
    lag_p50_ms: float | None
    lag_p99_ms: float | None


@dataclass(frozen=True)
class Totals:
    """What only grows: rows, transactions, and how long changes waited."""

    done: int
    encoded: int
    failed: int
    truncated: int
    writes: int
    lags: Lags


class Progress:
    """Thread-safe counters of one sync."""

    def __init__(self) -> None:
        self.stages = Stages()
        self.starts = 0  # of pipelines
        self._lock = threading.Lock()
        self._done = self._encoded = self._failed = self._truncated = self._writes = 0
        self._lags: deque[float] = deque(maxlen=_LAGS_KEPT)
        self._ordered: list[float] = []  # the same, as long as nothing is added
        self._unkept = Lags()  # not yet added to what the database keeps
        self._all_lags = Lags()  # since the start
        self._recent: deque[tuple[float, int]] = deque()
        self._started = time.monotonic()

    def wrote(self, outcomes: Sequence[Outcome], lags: Sequence[float]) -> None:
        """These rows are written; `lags` are seconds from change to commit."""
        now = time.monotonic()
        with self._lock:
            self._writes += 1
            self._done += len(outcomes)
            self._encoded += sum(outcome.vectors > 0 for outcome in outcomes)
            self._failed += sum(
                outcome.fate is Fate.STORE and outcome.error is not None for outcome in outcomes
            )
            self._lags.extend(lags)
            self._ordered = [] if lags else self._ordered
            self._unkept.add(lags)
            self._all_lags.add(lags)
            self._recent.append((now, len(outcomes)))
            while self._recent and self._recent[0][0] < now - _WINDOW_SECONDS:
                self._recent.popleft()

    def truncated(self, count: int) -> None:
        """So many texts were longer than the model reads."""
        with self._lock:
            self._truncated += count

    def take_lags(self) -> Lags:
        """The lags that nobody has taken yet; whoever cannot keep them gives them back."""
        with self._lock:
            taken, self._unkept = self._unkept, Lags()
            return taken

    def give_back(self, lags: Lags) -> None:
        with self._lock:
            self._unkept.merge(lags)

    def totals(self) -> Totals:
        """All since the start."""
        with self._lock:
            lags = Lags()
            lags.merge(self._all_lags)
            return Totals(self._done, self._encoded, self._failed, self._truncated, self._writes, lags)

    def last_lags(self, count: int) -> list[float]:
        """The last so many lags in seconds, or as many as are kept."""
        with self._lock:
            return list(itertools.islice(reversed(self._lags), count))

    def snapshot(self) -> Snapshot:
        now = time.monotonic()
        with self._lock:
            recent = [count for at, count in self._recent if at >= now - _WINDOW_SECONDS]
            span = min(_WINDOW_SECONDS, max(now - self._started, 0.1))
            lags = self._ordered = self._ordered or sorted(self._lags)
            return Snapshot(
                self._done,
                self._encoded,
                self._failed,
                self._truncated,
                sum(recent) / span,
                percentile(lags, 0.50),
                percentile(lags, 0.99),
            )


def percentile(ordered: list[float], share: float) -> float | None:
    """Nearest-rank percentile of seconds, in milliseconds."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000 if ordered else None


def resident_mib() -> float:
    """This process's resident memory in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
