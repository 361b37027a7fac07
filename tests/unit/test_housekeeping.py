"""Housekeeping goes on whatever is done to the wall clock, and sweeps know nothing of it."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from freshvec.worker.housekeeping import Housekeeping
from freshvec.worker.sweeps import Sweeps
from tests.support import until
from tests.wall_clock import WallClock

HOURS = timedelta(hours=2)
YEARS = timedelta(days=20 * 365)


@pytest.fixture
def jobs() -> Iterator[Housekeeping]:
    jobs = Housekeeping()
    yield jobs
    jobs.stop()


def goes_on(jobs: Housekeeping, runs: list[int]) -> None:
    """As the main loop tends it."""
    before = len(runs)

    def has_run() -> bool:
        jobs.tend()
        return len(runs) >= before + 3

    until("it has run three times more", has_run)


@pytest.mark.parametrize("by", [-HOURS, HOURS, -YEARS, YEARS], ids=str)
def test_jobs_are_run_whatever_the_wall_clock_says(
    jobs: Housekeeping, by: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = WallClock.of_scheduler(monkeypatch)
    runs: list[int] = []
    jobs.every(0.05, lambda: runs.append(1), "test")
    jobs.start()
    goes_on(jobs, runs)
    clock.by = by
    goes_on(jobs, runs)
    clock.by = timedelta()
    goes_on(jobs, runs)


def test_a_sweep_is_due_in_its_time_or_when_it_is_asked_for() -> None:
    sweeps = Sweeps(0.05)
    until("it is due", sweeps.take)
    until("so is the next one", sweeps.take)
    seldom = Sweeps(600)
    assert not seldom.take()
    assert 500 < seldom.patience() <= 660
    seldom.ask()
    assert seldom.patience() == 0
    assert seldom.take()
    assert not seldom.take(), "it was done"
