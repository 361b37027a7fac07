"""Progress: counters, rate over a window, percentiles of the lag."""

import threading

import numpy as np
import psutil
import pytest

from freshvec.pipeline.progress import Progress, Snapshot, resident_mib
from freshvec.records import Fate, Outcome

VECTOR = np.ones(3, dtype=np.float32)


class Clock:
    """Stands in for the monotonic clock, so that no test waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("freshvec.pipeline.progress.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def rows(count: int, fate: Fate = Fate.STORE, error: str | None = None) -> list[Outcome]:
    vector = VECTOR if fate is Fate.STORE and error is None else None
    return [Outcome((str(n),), 1, fate, vector, error=error) for n in range(count)]


def test_nothing_done_yet() -> None:
    assert Progress().snapshot() == Snapshot(0, 0, 0, 0, 0.0, None, None)


def test_rows_are_counted_by_what_became_of_them() -> None:
    progress = Progress()
    progress.wrote([*rows(5), *rows(2, error="refused"), *rows(3, Fate.TOUCH), *rows(1, Fate.REMOVE)], [])
    progress.truncated(4)
    shown = progress.snapshot()
    assert (shown.done, shown.encoded, shown.failed, shown.truncated) == (11, 5, 2, 4)


def test_the_rate_is_that_of_the_last_seconds(clock: Clock) -> None:
    progress = Progress()
    clock.now += 5
    progress.wrote(rows(100), [])
    assert progress.snapshot().rows_per_second == pytest.approx(20), "over the time since the start"
    clock.now += 9
    progress.wrote(rows(300), [])
    assert progress.snapshot().rows_per_second == pytest.approx(40)
    clock.now += 2
    assert progress.snapshot().rows_per_second == pytest.approx(30), (
        "the first hundred are longer ago than the window"
    )
    clock.now += 60
    assert progress.snapshot().rows_per_second == 0
    assert progress.snapshot().done == 400


def test_percentiles_are_in_milliseconds_and_over_the_last_changes() -> None:
    progress = Progress()
    progress.wrote([], [n / 1000 for n in range(1, 101)][::-1])
    shown = progress.snapshot()
    assert shown.lag_p50_ms == pytest.approx(50, abs=1)
    assert shown.lag_p99_ms == pytest.approx(99, abs=1)
    for _ in range(30):
        progress.wrote([], [0.007] * 100)
    assert progress.snapshot().lag_p99_ms == pytest.approx(7), "old lags are forgotten"


def test_one_lag_is_every_percentile() -> None:
    progress = Progress()
    progress.wrote([], [0.25])
    assert (progress.snapshot().lag_p50_ms, progress.snapshot().lag_p99_ms) == (250, 250)


def test_threads_do_not_lose_counts() -> None:
    progress = Progress()

    def work() -> None:
        for _ in range(500):
            progress.wrote(rows(2), [0.001])
            progress.truncated(1)
            progress.snapshot()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (progress.snapshot().done, progress.snapshot().truncated) == (4000, 2000)


def test_resident_memory_is_what_the_system_says() -> None:
    assert resident_mib() == pytest.approx(psutil.Process().memory_info().rss / 2**20, rel=0.05)
