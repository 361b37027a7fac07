"""The driver of workers elsewhere, with an engine that does as it is told: what becomes of each report."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from loguru import logger

from freshvec.config import Settings, Sync
from freshvec.fleet import driver as driver_module
from freshvec.fleet import remote
from freshvec.fleet.actor import Declared, Report
from freshvec.fleet.driver import Driver, Places
from freshvec.fleet.gathered import gathered
from freshvec.fleet.remote import Away, RemoteWorker
from freshvec.health.process import ModelNow, ProcessNow, SyncNow
from freshvec.health.watch import Seen
from freshvec.logs import Line
from freshvec.pipeline.lags import Lags
from freshvec.pipeline.progress import Totals
from freshvec.pipeline.stages import Spent
from freshvec.web.readiness import unready

SETTINGS = Settings.model_validate(
    {"database": {"url": "postgresql://nowhere"}, "daemon": {"serve": "127.0.0.1:1"}}
)


def process(
    phase: str = "live", *, is_alive: bool = True, rows: int = 3, is_running: bool = True
) -> ProcessNow:
    lags = Lags()
    lags.add([0.5] * rows)
    sync = SyncNow(
        name="docs",
        table="docs",
        model="m",
        phase=phase,
        is_owner=is_running,
        stands_by=not is_running,
        is_running=is_running,
        in_flight=1,
        starts=1,
        trouble=None,
        totals=Totals(rows, rows, 0, 0, 1, lags),
        stages={"read": Spent(1, 0.5), "tokenise": Spent(), "write": Spent()},
    )
    model = ModelNow("m", "cpu", 1, 10, 12, 0.5, 0, 512, 0, 0, None)
    return ProcessNow(is_alive, None, 1, {}, [sync], [model])


def report(code: int | None = None, **more: Any) -> Report:
    given = {"life": "a", "version": 1, "process": None if code is not None else process(), "lines": ()}
    return Report(**{**given, **more}, code=code)


class FakeActor:
    """Answers what it is given, then the last of it again and again."""

    def __init__(self, *answers: Report | Away | None, at_stop: int = 0) -> None:
        self.answers = list(answers)
        self.at_stop = at_stop
        self.done: list[str] = []
        self.asked: list[tuple[str, int]] = []

    def ask(self, life: str, since: int) -> None:
        self.asked.append((life, since))

    def answer(self) -> Report | None:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Away):
            raise answer
        return answer

    def take_up(self, declared: Declared) -> None:
        self.done.append(f"take up {declared.version}")

    def stop(self) -> None:
        self.done.append("stop")
        self.answers = [report(self.at_stop)]

    def restart(self) -> None:
        self.done.append("restart")

    def close(self) -> None:
        self.done.append("close")


class FakeCluster:
    def __init__(self, count: int, make: Callable[[int], FakeActor]) -> None:
        self._count = count
        self._make = make
        self.actors: list[FakeActor] = []
        self.is_closed = False

    def connect(self) -> None: ...

    def places(self) -> Places:
        return Places(self._count, 3)

    def begin(self, number: int, threads: int) -> FakeActor:
        assert threads == 3
        self.actors.append(self._make(number))
        return self.actors[-1]

    def close(self) -> None:
        self.is_closed = True


class NoPause:
    """A backoff without delays."""

    def __init__(self, **_: float) -> None:
        self.attempts = 0

    def next_delay(self) -> float:
        self.attempts += 1
        return 0.0

    def reset(self) -> None: ...


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No pauses, and room for five workers; signals are the tests' again afterwards."""
    monkeypatch.setattr(remote, "Backoff", NoPause)
    monkeypatch.setattr(driver_module, "bearable", lambda url: (5, 100))
    monkeypatch.setattr(driver_module, "check", lambda url, workers: None)
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def said() -> Iterator[list[str]]:
    messages: list[str] = []
    sink = logger.add(lambda message: messages.append(message.record["message"]), level="INFO")
    yield messages
    logger.remove(sink)


def drive(cluster: FakeCluster, *, once: bool, workers: int | None = None) -> int:
    return Driver(cluster, SETTINGS, (), workers=workers, once=once).run()


def test_as_many_as_there_is_room_for_and_postgres_bears() -> None:
    cluster = FakeCluster(9, lambda number: FakeActor(report(0)))
    assert drive(cluster, once=True) == 0
    assert len(cluster.actors) == 5
    assert cluster.is_closed
    some = FakeCluster(9, lambda number: FakeActor(report(0)))
    assert drive(some, once=True, workers=7) == 0
    assert len(some.actors) == 7, "as many as were asked for, whether there is room for them yet or not"


def test_what_it_is_told_first_is_what_is_declared_and_serves_nothing() -> None:
    told: list[Declared] = []

    class Told(FakeActor):
        def take_up(self, declared: Declared) -> None:
            told.append(declared)

    drive(FakeCluster(1, lambda number: Told(report(version=0, process=None), report(0))), once=True)
    (declared,) = told
    assert declared.version == 1
    daemon = declared.settings.daemon
    assert (daemon.share, daemon.serve, daemon.threads) == (True, None, 3)
    assert declared.settings.web.address == "off"


def test_what_only_its_user_can_cure_ends_all() -> None:
    cluster = FakeCluster(3, lambda number: FakeActor(report(78) if number == 1 else report()))
    assert drive(cluster, once=False) == 78
    stopped = ["stop", "close", "close"]
    assert [actor.done for actor in cluster.actors] == [stopped, ["close", "close"], stopped]


def test_what_only_its_user_can_cure_counts_before_rows_that_are_left() -> None:
    cluster = FakeCluster(2, lambda number: FakeActor(report(78) if number else report(), at_stop=1))
    assert drive(cluster, once=True) == 78


def test_one_that_fails_is_begun_again_and_what_works_once_gives_up_at_last(said: list[str]) -> None:
    cluster = FakeCluster(1, lambda number: FakeActor(report(1), report(1), report(0)))
    assert drive(cluster, once=True) == 0
    assert cluster.actors[0].done.count("restart") == 2
    hopeless = FakeCluster(1, lambda number: FakeActor(report(1)))
    assert drive(hopeless, once=True) == 1
    assert hopeless.actors[0].done.count("restart") == 10
    assert said[-1] == "w0 ended with 1, time after time: it is not begun again"


def test_a_file_that_is_read_again_is_compared_with_what_was_given(said: list[str]) -> None:
    """Its workers have settings of their own, which are no change of the file."""
    read = [
        SETTINGS,
        SETTINGS.model_copy(update={"daemon": SETTINGS.daemon.model_copy(update={"threads": 7})}),
    ]
    cluster = FakeCluster(1, lambda number: FakeActor(*[report()] * 4, report(0)))

    def reread() -> tuple[Settings, tuple[Sync, ...]]:
        if len(read) > 1:
            os.kill(os.getpid(), signal.SIGHUP)
        return read.pop(0), ()

    is_asked = threading.Event()
    is_asked.set()  # before it was here, while the engine was loaded
    Driver(cluster, SETTINGS, (), workers=None, once=True, reload=reread, is_asked=is_asked).run()
    assert read == []
    assert said.count("daemon.threads has changed: a restart takes it up, a reload the syncs alone") == 1


def test_more_time_is_asked_for_until_each_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(driver_module, "notify", said.append)
    monkeypatch.setattr(driver_module, "ask_for_time", lambda: said.append("more time"))
    first = {0: report(), 1: None}
    drive(FakeCluster(2, lambda number: FakeActor(first[number], report(), report(0))), once=True)
    said = [line for line in said if not line.startswith("STATUS")]
    assert said[:2] == ["more time", "READY=1"]
    assert "more time" not in said[1:]


def worker(*answers: Report | Away | None) -> tuple[RemoteWorker, FakeActor]:
    actor = FakeActor(*answers)
    return RemoteWorker(0, actor, once=False), actor


def turns(looked: RemoteWorker, count: int, version: int = 1) -> None:
    for _ in range(count):
        looked.advance(Declared(version, SETTINGS, ()))


def test_lines_are_asked_for_from_the_last_one_of_that_life() -> None:
    line = Line(7, 0.0, "INFO", "hello")
    looked, actor = worker(report(lines=(line,)), report(), report(life="b"), report())
    turns(looked, 4)
    assert actor.asked == [("", 0), ("a", 7), ("a", 7), ("b", 0)], "another life begins with its first line"


def test_one_that_is_away_comes_by_itself_and_one_that_is_dead_is_begun_again(said: list[str]) -> None:
    gone = Away("gone", is_for_good=False)
    looked, actor = worker(gone, gone, report())
    turns(looked, 2)
    assert looked.process is None
    turns(looked, 1)
    assert looked.process is not None
    assert actor.done == []
    assert said == ["w0 is away: gone", "w0 is there"], "once each"
    dead, actor = worker(Away("dead", is_for_good=True), report())
    turns(dead, 2)
    assert actor.done == ["restart"]


def test_one_that_is_stuck_is_begun_again() -> None:
    looked, actor = worker(report(process=process(is_alive=False)), report())
    turns(looked, 2)
    assert actor.done == ["restart"]


def test_a_file_that_was_read_again_goes_to_each_once() -> None:
    looked, actor = worker(report(), report(), report(version=2))
    turns(looked, 1)
    turns(looked, 2, version=2)
    assert actor.done == ["take up 2"]


def test_one_that_has_not_begun_is_not_waited_for() -> None:
    looked, actor = worker(None)
    turns(looked, 1)
    looked.stop()
    assert looked.is_over
    assert actor.done == []


def test_counts_are_added_up_and_one_that_runs_is_shown() -> None:
    both = gathered([process("standing by", is_running=False), process("walking", rows=4)], is_alive=True)
    (sync,) = both.syncs
    assert (sync.phase, sync.is_owner, sync.stands_by, sync.is_running) == ("walking", True, False, True)
    assert (sync.totals.done, sync.totals.writes, sync.in_flight, sync.starts) == (7, 2, 2, 2)
    assert sum(sync.totals.lags.counts) == 7
    assert sync.stages["read"] == Spent(2, 1.0)
    (model,) = both.models
    assert (model.tokens, model.busy_seconds, model.batch_tokens) == (20, 1.0, 512)
    assert (both.workers, both.reconnects, both.is_alive) == (2, 2, True)


def test_before_any_has_begun_it_is_not_ready() -> None:
    seen = Seen()
    assert unready(gathered([], is_alive=True), seen) == ["no worker has begun yet"]
    assert unready(gathered([process()], is_alive=True), seen) == []
