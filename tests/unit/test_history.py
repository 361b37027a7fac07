"""The history that the page draws: equal steps, exact lags, nothing of a sync that has gone."""

from types import SimpleNamespace
from typing import Any

import pytest

from freshvec.health.history import History
from freshvec.pipeline.progress import Progress
from freshvec.records import Fate, Outcome


class Clock:
    """Stands in for the monotonic clock, so that no test waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("freshvec.health.history.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def keeper(name: str, progress: Progress) -> Any:
    return SimpleNamespace(sync=SimpleNamespace(name=name), progress=progress)


def rows(count: int) -> list[Outcome]:
    return [Outcome((str(n),), 1, Fate.TOUCH) for n in range(count)]


def test_a_step_has_the_rate_and_the_lags_of_its_own_time(clock: Clock) -> None:
    progress, history = Progress(), History()
    docs = [keeper("docs", progress)]
    progress.wrote(rows(50), [9.0] * 50)
    history.sample(docs)  # what was before is no step
    clock.now += 5
    progress.wrote(rows(100), [n / 1000 for n in range(1, 101)])
    history.sample(docs)
    clock.now += 5
    history.sample(docs)  # a quiet one
    clock.now += 10
    progress.wrote(rows(20), [])
    history.sample(docs)
    first, last = history.since(0)["docs"]
    assert (first[0], last[0]) == (2, 4)
    assert (first[1].rows_per_second, first[1].lag_p50, first[1].lag_p99) == (20, 51, 100)
    assert (last[1].rows_per_second, last[1].lag_p99) == (2, None)
    assert history.since(2)["docs"] == [last]


def test_a_sync_that_is_declared_anew_begins_anew(clock: Clock) -> None:
    old, new, history = Progress(), Progress(), History()
    history.sample([keeper("docs", old)])
    clock.now += 5
    old.wrote(rows(10), [])
    history.sample([keeper("docs", old)])
    new.wrote(rows(99), [])
    history.sample([keeper("docs", new)])
    assert history.since(0)["docs"] == []
    history.sample([])
    assert history.since(0) == {}


def test_what_is_older_than_a_quarter_of_an_hour_is_gone(clock: Clock) -> None:
    progress, history = Progress(), History()
    for _ in range(400):
        clock.now += 5
        progress.wrote(rows(5), [])
        history.sample([keeper("docs", progress)])
    assert [number for number, _ in history.since(0)["docs"]] == list(range(221, 401))
