"""Workers that share a sync, of which some are killed, stopped, cut off, or fail."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from freshvec.errors import DatabaseError, EncodingError
from freshvec.pipeline import epoch
from freshvec.records import Tokens, Vector
from tests.integration.sharing import fill, is_at_rest, is_fair, shards, shared, together
from tests.staleness import stale
from tests.support import REPOSITORY, Connection, NullEncoder, running, settings_for, sync_of, until

ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'daemon'}:{REPOSITORY}"}


@pytest.fixture
def processes(docs: Connection) -> Iterator[Callable[[], "subprocess.Popen[bytes]"]]:
    started: list[subprocess.Popen[bytes]] = []

    def start() -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "tests.integration.small_worker", docs.info.dsn, "share"]
        started.append(subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(60)


def test_one_that_is_killed_or_stopped_is_replaced_and_wakes_in_vain(
    docs: Connection, processes: Callable[[], "subprocess.Popen[bytes]"]
) -> None:
    """What it had in hand is read again by the others, ranges included; once awake it shares again."""
    fill(docs, 30_000)
    workers = [processes() for _ in range(3)]
    until("three share", lambda: is_fair(docs, 3))
    workers[0].kill()
    until("two share", lambda: is_fair(docs, 2), 20)
    docs.execute("UPDATE docs SET body = body || ' once' WHERE id % 3 = 0")
    workers[1].send_signal(signal.SIGSTOP)
    docs.execute("UPDATE docs SET body = body || ' twice' WHERE id % 5 = 0")
    until("the last one has all", lambda: shards(docs) == [64], 20)
    docs.execute("DELETE FROM docs WHERE id % 7 = 0")
    docs.execute("UPDATE docs SET body = NULL WHERE id % 11 = 0")
    workers[1].send_signal(signal.SIGCONT)
    until("two share again", lambda: is_fair(docs, 2), 30)
    until("all is fresh", lambda: is_at_rest(docs))
    assert stale(docs, NullEncoder()) == []


def test_shards_that_could_not_be_given_up_stay_with_who_has_them(
    docs: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a writing transaction takes longer than the wait for its lock."""
    failures = [DatabaseError("resize", "the share", "a lock was not to be had", "Wait.", retryable=True)]
    resize = epoch.resize

    def fail_once(*given: Any) -> None:
        if failures:
            raise failures.pop()
        resize(*given)

    monkeypatch.setattr(epoch, "resize", fail_once)
    fill(docs, 200)
    with running(shared(docs), NullEncoder()):
        until("the first one has all", lambda: is_fair(docs, 1))
        with running(shared(docs), NullEncoder()):
            until("two share", lambda: is_fair(docs, 2), 20)
            docs.execute("UPDATE docs SET body = body || ' changed'")
            until("the changes are in", lambda: is_at_rest(docs))
            assert stale(docs, NullEncoder()) == []
    assert failures == []


def test_a_worker_that_was_terminated_gives_everything_back_at_once(
    docs: Connection, processes: Callable[[], "subprocess.Popen[bytes]"]
) -> None:
    fill(docs, 1000)
    workers = [processes() for _ in range(2)]
    until("two share", lambda: is_fair(docs, 2))
    workers[0].terminate()
    workers[0].wait(30)
    assert len(shards(docs)) == 1, "its row went with it"
    until("the other has all", lambda: shards(docs) == [64], 5)


def test_nothing_of_it_is_seen_where_a_server_restart_ends_all_sessions(docs: Connection) -> None:
    fill(docs, 300)
    with together(docs, 2):
        with psycopg.connect(docs.info.dsn, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name LIKE 'freshvec%'"
            )
        docs.execute("UPDATE docs SET body = 'after'")
        until("both are back", lambda: is_fair(docs, 2))
        until("all is fresh", lambda: is_at_rest(docs))
        assert stale(docs, NullEncoder()) == []


def test_one_that_is_stopped_while_it_is_rung_loses_its_shards(
    docs: Connection, processes: Callable[[], "subprocess.Popen[bytes]"]
) -> None:
    """What it is sent and does not read fills its connection, where no timeout of the server's ends it."""
    fill(docs, 100)
    stopped = processes()
    until("it has all", lambda: shards(docs) == [64])
    settings = settings_for(docs.info.dsn, sync_of("docs", target={"type": "real[]"}), share=True)
    with running(settings, NullEncoder()):
        until("two share", lambda: is_fair(docs, 2))
        stopped.send_signal(signal.SIGSTOP)
        stuck = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'"
        note = "SELECT pg_notify('freshvec', repeat('x', 7000) || g) FROM generate_series(1, 300) g"

        def ring() -> bool:
            docs.execute(note)
            return docs.execute(stuck).fetchone() != (0,) or shards(docs) == [64]

        until("its session is in a write, or ended", ring)
        until("the other has all", lambda: shards(docs) == [64], 20)
        stopped.send_signal(signal.SIGCONT)
        until("two share again", lambda: is_fair(docs, 2))


def test_one_that_fails_leaves_its_shards_to_the_others(docs: Connection) -> None:
    fill(docs, 1000)
    with running(shared(docs), NullEncoder()):
        until("it has all", lambda: shards(docs) == [64])
        with running(shared(docs), FailingEncoder()) as second:

            def fails() -> bool:
                docs.execute("UPDATE docs SET body = body || ' changed' WHERE id <= 100")
                return second.keepers[0].last_error is not None

            until("it has failed", fails)
            until("nothing waits", lambda: is_at_rest(docs))
            assert stale(docs, NullEncoder()) == []


def test_what_one_that_follows_has_overcome_is_no_trouble_of_the_sync(docs: Connection) -> None:
    fill(docs, 100)
    encoders = [RecoveringEncoder(), RecoveringEncoder()]
    with ExitStack() as stack:
        workers = [stack.enter_context(running(shared(docs), encoder)) for encoder in encoders]
        until("both share", lambda: is_fair(docs, 2))
        until("all is fresh", lambda: is_at_rest(docs))
        place = next(place for place, worker in enumerate(workers) if not worker.keepers[0].leads)
        encoders[place].is_lost = True
        docs.execute("UPDATE docs SET body = body || ' changed'")
        until("it has failed", lambda: workers[place].keepers[0].last_error is not None)
        encoders[place].is_lost = False
        until("nothing waits", lambda: is_at_rest(docs))
        until("it has recovered", lambda: workers[place].keepers[0].last_error is None)
        assert docs.execute("SELECT trouble FROM freshvec.sync").fetchone() == (None,)


class RecoveringEncoder(NullEncoder):
    """Has lost its device for a while."""

    is_lost = False

    def encode(self, batch: list[Tokens]) -> Vector:
        if self.is_lost:
            raise EncodingError("encode", "a text", "the device is gone", retryable=True)
        return super().encode(batch)


class FailingEncoder(NullEncoder):
    """Has lost its device."""

    def encode(self, batch: list[Tokens]) -> Vector:
        raise EncodingError("encode", "a text", "the device is gone", retryable=True)
