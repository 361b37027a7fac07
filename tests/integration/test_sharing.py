"""Workers that share a sync: each has its shards, all of them walk, one leads."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql

from freshvec.config import Settings
from freshvec.errors import EncodingError
from freshvec.records import Tokens, Vector
from freshvec.worker.worker import Worker
from tests.staleness import stale
from tests.support import (
    REPOSITORY,
    Connection,
    NullEncoder,
    backfill,
    count,
    running,
    settings_for,
    sync_of,
    until,
)

ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'daemon'}:{REPOSITORY}"}
AT_REST = "SELECT backlog = 0 AND coverage = 1 AND backfill_done AND NOT rescan_waiting FROM freshvec.status"


def shared(docs: Connection, **daemon: Any) -> Settings:
    """Nothing is found by sweeps but what is not heard of."""
    daemon = {"sweep_seconds": 600.0, "page_rows": 100, "share": True, **daemon}
    return settings_for(docs.info.dsn, sync_of("docs"), **daemon)


@contextmanager
def together(docs: Connection, number: int, **daemon: Any) -> Iterator[list[Worker]]:
    """So many workers, once each has its shards."""
    with ExitStack() as stack:
        settings = shared(docs, **daemon)
        workers = [stack.enter_context(running(settings, NullEncoder(0.001))) for _ in range(number)]
        until("each has its shards", lambda: is_fair(docs, number))
        yield workers


def shards(docs: Connection) -> list[int]:
    if docs.execute("SELECT to_regclass('freshvec.workers')").fetchone() == (None,):
        return []
    return [number for (number,) in docs.execute("SELECT shards FROM freshvec.workers ORDER BY shards")]


def is_fair(docs: Connection, number: int) -> bool:
    has = shards(docs)
    return len(has) == number and sum(has) == 64 and max(has) - min(has) <= 1


def is_at_rest(docs: Connection) -> bool:
    return docs.execute(AT_REST).fetchone() == (True,)


def fill(docs: Connection, rows: int) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, %s) g", (rows,))


def done_by(worker: Worker) -> int:
    return worker.keepers[0].progress.snapshot().done


def test_all_of_them_walk_and_each_has_changes_of_its_own(docs: Connection) -> None:
    fill(docs, 20_000)
    with together(docs, 3) as workers:
        until("all is fresh", lambda: is_at_rest(docs))
        before = [done_by(worker) for worker in workers]
        assert sum(before) >= 20_000
        assert docs.execute("SELECT count(*) FROM freshvec.range").fetchone() == (0,)
        docs.execute("UPDATE docs SET body = body || ' changed' WHERE id <= 3000")
        until("the changes are in", lambda: is_at_rest(docs))
        changes = [done_by(worker) - count for worker, count in zip(workers, before, strict=True)]
        assert sum(changes) == 3000, "each change was one worker's"
        assert min(changes) > 600
        assert stale(docs, NullEncoder()) == []
        until(
            "all is counted",
            lambda: docs.execute("SELECT rows_embedded FROM freshvec.sync").fetchone() == (20_000,),
        )


def test_a_partitioned_table_is_shared_like_any_other(application: Connection) -> None:
    application.execute("CREATE TABLE docs (id bigint PRIMARY KEY, body text) PARTITION BY RANGE (id)")
    for first in (0, 4000, 8000):
        bounds = f"FROM ({first}) TO ({first + 4000})"
        application.execute(f"CREATE TABLE docs_{first} PARTITION OF docs FOR VALUES {bounds}".encode())
    fill(application, 11_000)
    with together(application, 2) as workers:
        until("all is fresh", lambda: is_at_rest(application))
        assert min(done_by(worker) for worker in workers) > 500
        application.execute("UPDATE docs SET body = body || ' changed' WHERE id % 4 = 0")
        application.execute("DELETE FROM docs WHERE id < 100")
        application.execute("UPDATE docs SET id = id - 10950 WHERE id > 10960")  # into another partition
        until("the changes are in", lambda: is_at_rest(application))
        assert stale(application, NullEncoder()) == []


def test_a_walk_is_begun_by_the_one_that_leads_and_joined_by_all(docs: Connection) -> None:
    fill(docs, 20_000)
    with together(docs, 2, page_rows=50) as workers:
        until("all is fresh", lambda: is_at_rest(docs))
        before = [done_by(worker) for worker in workers]
        docs.execute("TRUNCATE docs")
        fill(docs, 15_000)
        until("the walk is over", lambda: is_at_rest(docs))
        assert all(done_by(worker) > count + 1000 for worker, count in zip(workers, before, strict=True))
        assert stale(docs, NullEncoder()) == []
        (found,) = (
            docs.execute("SELECT proven_at > now() - interval '1 minute' FROM freshvec.sync").fetchone() or ()
        )
        assert found


def test_lone_edits_are_heard_by_whoever_has_their_shard(docs: Connection) -> None:
    """Also after the one that is rung, and the one that leads, have gone. Nobody sweeps."""
    fill(docs, 64)
    settings = shared(docs)
    with ExitStack() as stack:
        first = stack.enter_context(running(settings, NullEncoder()))
        until("the first one has all", lambda: is_fair(docs, 1))
        with running(settings, NullEncoder()):
            until("two share", lambda: is_fair(docs, 2))
            until("all is fresh", lambda: is_at_rest(docs))
            edit_each(docs, "with two")
            first.stop()
            until("one is left", lambda: is_fair(docs, 1))
            edit_each(docs, "with one")
            assert stale(docs, NullEncoder()) == []


def edit_each(docs: Connection, text: str) -> None:
    for row in range(1, 65, 7):
        docs.execute("UPDATE docs SET body = %s WHERE id = %s", (f"{text} {row}", row))
        until(f"row {row} is heard of, {text}", lambda: count(docs, "freshvec.queue_docs") == 0, 20)


def test_one_that_keeps_a_sync_alone_and_those_who_share_leave_it_to_each_other(docs: Connection) -> None:
    fill(docs, 10)
    with running(shared(docs, share=False), NullEncoder()) as alone:
        until("it keeps the sync", lambda: bool(alone.keepers) and alone.keepers[0].is_fresh)
        with running(shared(docs), NullEncoder()) as sharing:
            until("it stands by", lambda: sharing.keepers[0].stands_by)
            alone.stop()
            until("it has taken over", lambda: shards(docs) == [64])
            with running(shared(docs, share=False), NullEncoder()) as again:
                until("another stands by", lambda: again.keepers[0].stands_by)
                sharing.stop()
                until("that one has it", lambda: again.keepers[0].is_fresh)
                assert shards(docs) == []
                docs.execute("UPDATE docs SET body = 'later'")
                until("it keeps it fresh", lambda: is_at_rest(docs))
    assert stale(docs, NullEncoder()) == []


def test_once_together(docs: Connection) -> None:
    """Each ends when all is fresh, the walk that was begun for it included."""
    fill(docs, 5000)
    for text in ("first", "second"):
        with ThreadPoolExecutor() as threads:
            ends = [threads.submit(backfill, shared(docs), NullEncoder(0.001)) for _ in range(2)]
        assert sum(done_by(end.result()) for end in ends) >= 5000
        assert stale(docs, NullEncoder()) == [], text
        with unnoted(docs):
            docs.execute("UPDATE docs SET body = concat(body, %s::text) WHERE id %% 2 = 0", (text,))


@contextmanager
def unnoted(docs: Connection) -> Iterator[None]:
    """Changes that no trigger sees."""
    triggers = docs.execute("SELECT tgname FROM pg_trigger WHERE tgrelid = 'docs'::regclass").fetchall()
    for (name,) in triggers:
        docs.execute(sql.SQL("ALTER TABLE docs DISABLE TRIGGER {}").format(sql.Identifier(name)))
    yield
    for (name,) in triggers:
        enable = "ENABLE REPLICA" if "replica" in name else "ENABLE"
        docs.execute(sql.SQL(f"ALTER TABLE docs {enable} TRIGGER {{}}").format(sql.Identifier(name)))


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


def test_one_with_another_definition_leaves_all_to_the_others_until_they_are_gone(docs: Connection) -> None:
    fill(docs, 100)
    docs.execute("ALTER TABLE docs ADD COLUMN title text DEFAULT 'title'")
    other = settings_for(docs.info.dsn, sync_of("docs", columns=["title"]), share=True)
    with running(shared(docs), NullEncoder()) as first:
        until("it has all", lambda: shards(docs) == [64])
        with running(other, NullEncoder()) as second:
            until("the other one is aside", lambda: second.keepers[0].wants_ownership)
            docs.execute("UPDATE docs SET body = 'changed'")
            until("nothing waits", lambda: is_at_rest(docs))
            until("one has all", lambda: shards(docs) == [64])
            assert stale(docs, NullEncoder()) == []
            first.stop()
            until("it has applied its own", lambda: second.keepers[0].is_fresh)
            hashes = "SELECT count(DISTINCT content_hash) FROM docs_embedding"
            until("all have the title's vector", lambda: docs.execute(hashes).fetchone() == (1,))


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


class FailingEncoder(NullEncoder):
    """Has lost its device."""

    def encode(self, batch: list[Tokens]) -> Vector:
        raise EncodingError("encode", "a text", "the device is gone", retryable=True)


def test_our_schema_is_dropped_while_they_share(docs: Connection) -> None:
    fill(docs, 200)
    with together(docs, 2, sweep_seconds=1.0):
        until("all is fresh", lambda: is_at_rest(docs))
        docs.execute("DROP SCHEMA freshvec CASCADE")
        docs.execute("UPDATE docs SET body = 'after'")
        until("it is there again", lambda: is_fair(docs, 2))
        until("all is fresh", lambda: is_at_rest(docs))
        assert stale(docs, NullEncoder()) == []
