"""The threads that all syncs of a worker share."""

import heapq
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable


class Task:
    """Work that goes on in steps. `step` gives the seconds until its next one, 0 for at once.

    One thread at a time runs it. It must not raise.
    """

    def __init__(self, crew: "Crew", step: Callable[[], float]) -> None:
        self.step = step
        self.began: float | None = None  # the step under way, by the monotonic clock
        self.due = math.inf
        self.is_woken = False  # while its step was under way
        self.is_closed = False
        self._crew = crew

    def wake(self, *, urgent: bool = False) -> None:
        """Run the next step now; an urgent one goes before all others."""
        self._crew.wake(self, urgent=urgent)

    def close(self, timeout: float) -> bool:
        """Run no step any more. Waits until none is under way; False when that takes longer."""
        return self._crew.close_task(self, timeout)

    def seconds_in_step(self) -> float:
        """How long the step under way has taken; 0 when there is none."""
        began = self.began
        return 0.0 if began is None else time.monotonic() - began


def _nothing() -> float:
    return math.inf


class Crew:
    """A few threads that take turns at the steps of many tasks: after each step the others come first.

    One thread runs urgent steps alone, so that none waits until all the others have done with theirs.
    """

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        lock = threading.Lock()
        self._any = threading.Condition(lock)  # threads that take any task wait here
        self._reserve = threading.Condition(lock)  # here the one that takes urgent ones alone
        self._ended = threading.Condition(lock)  # and here who waits for a step to end
        self._urgent: deque[Task] = deque()
        self._waiting: deque[Task] = deque()
        self._later: list[tuple[float, int, Task]] = []  # by when they are due; entries of old dates stay in
        self._order = itertools.count()
        self._is_reserve_idle = False
        self._is_closed = False
        self._threads: list[threading.Thread] = []

    def task(self, step: Callable[[], float]) -> Task:
        """A task whose first step waits for `wake`."""
        return Task(self, step)

    def wake(self, task: Task, *, urgent: bool) -> None:
        with self._any:
            self._start()
            if task.is_closed:
                return
            if task.began is not None:
                task.is_woken = True
                return
            task.due = math.inf
            self._line_up(task, urgent)

    def close_task(self, task: Task, timeout: float) -> bool:
        with self._any:
            task.is_closed = True
            for line in (self._urgent, self._waiting):
                if task in line:
                    line.remove(task)
            # A thread that waits, or a date to come, may hold the task for hours: not what its step holds.
            task.step = _nothing
            return self._ended.wait_for(lambda: task.began is None, timeout)

    def close(self) -> None:
        """End the threads, each after the step under way."""
        with self._any:
            self._is_closed = True
            self._any.notify_all()
            self._reserve.notify_all()

    def _start(self) -> None:
        """The threads, with the first task; with a later one those that could not be started."""
        for place in range(len(self._threads), self._size):
            only_urgent = place == 0 and self._size > 1
            name = f"{self._name} {place + 1}"
            thread = threading.Thread(target=self._run, args=(only_urgent,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def _line_up(self, task: Task, urgent: bool) -> None:
        if task in self._urgent or (task in self._waiting and not urgent):
            return
        if task in self._waiting:
            self._waiting.remove(task)
        (self._urgent if urgent else self._waiting).append(task)
        if urgent and self._is_reserve_idle:
            self._is_reserve_idle = False  # two threads that wake for one step keep each other waiting
            self._reserve.notify()
        else:
            self._any.notify()

    def _run(self, only_urgent: bool) -> None:
        while (task := self._next(only_urgent)) is not None:
            delay = task.step()
            with self._any:
                task.began = None
                if not task.is_closed:
                    self._plan(task, 0.0 if task.is_woken else delay)
                self._ended.notify_all()

    def _plan(self, task: Task, delay: float) -> None:
        if delay <= 0:
            self._line_up(task, urgent=False)
        elif delay < math.inf:
            task.due = time.monotonic() + delay
            heapq.heappush(self._later, (task.due, next(self._order), task))
            self._any.notify()  # whoever waits for a later one

    def _next(self, only_urgent: bool) -> Task | None:
        """The task whose turn it is, marked as under way; None at the end. Waits for one."""
        with self._any:
            while not self._is_closed:
                patience = self._call_due()
                line = self._urgent or (None if only_urgent else self._waiting)
                if line:
                    task = line.popleft()
                    task.began, task.is_woken, task.due = time.monotonic(), False, math.inf
                    return task
                if only_urgent:
                    self._is_reserve_idle = True
                    self._reserve.wait()
                    self._is_reserve_idle = False
                else:
                    self._any.wait(patience)
            return None

    def _call_due(self) -> float | None:
        """Line up what is due; gives the seconds until the next one is."""
        now = time.monotonic()
        while self._later:
            due, _, task = self._later[0]
            if task.is_closed or task.due != due:
                heapq.heappop(self._later)
            elif due <= now:
                heapq.heappop(self._later)
                task.due = math.inf
                self._line_up(task, urgent=False)
            else:
                return due - now
        return None
