"""The threads that syncs share: turns, urgency, dates, and the end of a task."""

import math
import threading
import weakref
from collections.abc import Iterator

import pytest

from freshvec.pipeline.crew import Crew
from tests.support import until


@pytest.fixture
def crew() -> Iterator[Crew]:
    crew = Crew("test", 2)
    yield crew
    crew.close()


def test_tasks_take_turns(crew: Crew) -> None:
    turns: list[str] = []
    gate = threading.Event()

    def step(name: str) -> float:
        gate.wait(10)
        turns.append(name)
        return 0.0 if turns.count(name) < 20 else math.inf

    tasks = [crew.task(lambda name=name: step(name)) for name in "abc"]  # type: ignore[misc]
    for task in tasks:
        task.wake()
    gate.set()
    until("all have had their turns", lambda: len(turns) == 60)
    assert turns[:6] == list("abcabc")


def test_an_urgent_step_does_not_wait_for_the_others(crew: Crew) -> None:
    gate, ran = threading.Event(), [0]

    def slow() -> float:
        gate.wait(30)
        return math.inf

    def urgent() -> float:
        ran[0] += 1
        return math.inf

    for _ in range(5):
        crew.task(slow).wake()
    task = crew.task(urgent)
    for turn in range(1, 51):  # a thread that took what it finds would soon have taken a slow one
        task.wake(urgent=True)
        until("the urgent one has run", lambda turn=turn: ran[0] >= turn)  # type: ignore[misc]
    gate.set()


def test_no_task_runs_twice_at_a_time_and_no_wake_is_lost(crew: Crew) -> None:
    busy, wrong, seen = threading.Lock(), [], [0]
    asked = [0]

    def step() -> float:
        if not busy.acquire(blocking=False):
            wrong.append("twice at a time")
            return math.inf
        seen[0] = asked[0]
        busy.release()
        return math.inf

    task = crew.task(step)

    def wake() -> None:
        for _ in range(2000):
            asked[0] += 1
            task.wake(urgent=asked[0] % 3 == 0)

    threads = [threading.Thread(target=wake) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    until("the last wake is followed by a step", lambda: seen[0] == asked[0])
    assert wrong == []


def test_threads_that_could_not_be_started_are_started_later(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where there was no memory, or too many of them. The first one takes urgent steps alone."""
    start, attempts = threading.Thread.start, [0]

    def fails_once(thread: threading.Thread) -> None:
        attempts[0] += 1
        if attempts[0] == 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fails_once)
    has_run = threading.Event()

    def step() -> float:
        has_run.set()
        return math.inf

    task = crew.task(step)
    with pytest.raises(RuntimeError):
        task.wake()
    task.wake()
    assert has_run.wait(10)


def test_a_step_comes_when_it_is_due_or_when_it_is_woken(crew: Crew) -> None:
    steps: list[float] = []
    delays = [0.05, 3600.0, math.inf]

    def step() -> float:
        steps.append(0.0)
        return delays[len(steps) - 1]

    task = crew.task(step)
    task.wake()
    until("the second step was due", lambda: len(steps) == 2)
    task.wake()
    until("the third was asked for", lambda: len(steps) == 3)


def test_who_is_woken_in_a_step_takes_another(crew: Crew) -> None:
    began, gate = threading.Event(), threading.Event()
    steps = [0]

    def step() -> float:
        steps[0] += 1
        began.set()
        gate.wait(30)
        return math.inf

    task = crew.task(step)
    task.wake()
    assert began.wait(10)
    task.wake()
    gate.set()
    until("the other step was taken", lambda: steps[0] == 2)


def test_a_closed_task_runs_no_more(crew: Crew) -> None:
    began, gate = threading.Event(), threading.Event()
    steps = [0]

    def step() -> float:
        steps[0] += 1
        began.set()
        gate.wait(30)
        return 0.0

    task = crew.task(step)
    task.wake()
    assert began.wait(10)
    assert not task.close(0.01), "a step is under way"
    gate.set()
    assert task.close(10)
    task.wake(urgent=True)
    other = threading.Event()

    def set_other() -> float:
        other.set()
        return math.inf

    crew.task(set_other).wake()
    assert other.wait(10)
    assert steps == [1]


@pytest.mark.parametrize("delay", [math.inf, 3600.0])
def test_a_closed_task_holds_nothing(crew: Crew, delay: float) -> None:
    """Neither by the thread that ran it last and waits, nor by a date that is to come."""

    ran: list[bool] = []

    class Work:
        def step(self) -> float:
            ran.append(True)
            return delay

    work = Work()
    kept, task = weakref.ref(work), crew.task(work.step)
    del work
    task.wake()
    until("its step is over", lambda: ran and task.began is None)
    assert task.close(10)
    assert kept() is None
