"""Many syncs in one worker: few connections and threads, each its turn, and a bad one stops no other."""

import threading
from collections import Counter
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from freshvec.errors import DatabaseError
from freshvec.pipeline.pool import Pool
from freshvec.pipeline.reader import Reader
from tests.support import Connection, NullEncoder, count, running, settings_for, sync_of, until, wait_fresh

SYNCS = 50
OURS = "pg_stat_activity WHERE application_name LIKE 'freshvec%' AND datname = current_database()"


def make_tables(application: Connection, rows: int) -> None:
    for place in range(SYNCS):
        application.execute(f"CREATE TABLE t{place} (id int PRIMARY KEY, body text)".encode())
        application.execute(
            f"INSERT INTO t{place} SELECT g, 'text ' || g FROM generate_series(1, {rows}) g".encode()
        )


def test_fifty_syncs_share_few_connections_and_threads(url: str, application: Connection) -> None:
    make_tables(application, 50)
    syncs = [sync_of(f"t{place}", f"s{place}") for place in range(SYNCS)]
    before = threading.active_count()
    with running(settings_for(url, *syncs), NullEncoder()) as worker:
        wait_fresh(worker)
        for place in range(SYNCS):
            application.execute(f"UPDATE t{place} SET body = body || ' new'".encode())
        wait_fresh(worker)
        assert 1 < count(application, OURS) <= 8
        assert threading.active_count() - before <= 20
        # One table is locked for as long as the others change.
        with psycopg.connect(url) as holder, ExitStack() as stack:
            stack.callback(holder.rollback)
            holder.execute("LOCK TABLE t0")
            for place in range(1, SYNCS):
                application.execute(f"INSERT INTO t{place} VALUES (0, 'late')".encode())
            done = " + ".join(
                f"(SELECT count(*) FROM t{place}_embedding WHERE id = 0)" for place in range(1, SYNCS)
            )
            until(
                "all others are fresh",
                lambda: application.execute(f"SELECT {done}".encode()).fetchone() == (SYNCS - 1,),
            )


def test_a_worker_that_has_ended_leaves_no_session(url: str, docs: Connection) -> None:
    """As where it is run in a program of somebody's, whose database is to be copied or renamed then."""
    with running(settings_for(url, sync_of("docs")), NullEncoder()) as worker:
        wait_fresh(worker)
        assert count(docs, OURS) > 0
    until("all sessions have ended", lambda: count(docs, OURS) == 0)


def test_a_sweep_asks_little_where_nothing_has_happened(
    url: str, application: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One statement of each reader; table and index of each sync; one about what is the same for all, and
    three about editions."""
    make_tables(application, 5)
    asked: list[str] = []
    by_thread: Counter[int] = Counter()
    looks: list[tuple[Reader, bool, int]] = []  # of whom, whether nothing was to be done, and its statements
    execute, is_at_rest = psycopg.Connection.execute, Reader.is_at_rest

    def noted(connection: Connection, *given: Any, **more: Any) -> Any:
        asked.append(threading.current_thread().name.split()[0])
        by_thread[threading.get_ident()] += 1
        return execute(connection, *given, **more)

    def look(reader: Reader) -> bool:
        before = by_thread[threading.get_ident()]
        rests = is_at_rest(reader)
        looks.append((reader, rests, by_thread[threading.get_ident()] - before))
        return rests

    syncs = [sync_of(f"t{place}", f"s{place}") for place in range(5)]
    with running(settings_for(url, *syncs, sweep_seconds=3600.0), NullEncoder()) as worker:
        wait_fresh(worker)
        pipelines = [keeper.pipeline for keeper in worker.keepers if keeper.pipeline]
        until("all are rung", lambda: all(pipeline.polling.is_rung for pipeline in pipelines))
        until("all have looked then", lambda: all(keeper.is_fresh for keeper in worker.keepers))
        monkeypatch.setattr(psycopg.Connection, "execute", noted)
        monkeypatch.setattr(Reader, "is_at_rest", look)
        worker.sweep()
        until("all readers have looked", lambda: len({reader for reader, *_ in looks}) == len(syncs))
        until("and so has the main loop", lambda: asked.count("worker") > 2 * len(syncs) + 3)
        # One that has just been rung may look twice: the main loop notes that before it wakes it.
        assert {seen[1:] for seen in looks} == {(True, 1)}
        application.execute("INSERT INTO t4 VALUES (0, 'the last')")
        until("that is found", lambda: count(application, "t4_embedding WHERE id = 0") == 1)
        assert asked.count("worker") == 2 * len(syncs) + 4


def test_a_pool_lends_each_connection_to_one_thread(url: str) -> None:
    pool = Pool(SecretStr(url), "test", 2)
    pids: set[int] = set()
    wrong: list[str] = []

    def work() -> None:
        for _ in range(30):
            with pool.transaction():
                first = pool.execute("SELECT pg_backend_pid(), txid_current()").fetchone()
                with pool.transaction():
                    second = pool.execute("SELECT pg_backend_pid(), txid_current()").fetchone()
                if first is None or first != second:
                    wrong.append(f"{first} is not {second}")
                else:
                    pids.add(first[0])

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert len(pids) == 2
    pool.close()


def test_a_pool_whose_sessions_were_ended_opens_others(url: str, application: Connection) -> None:
    pool = Pool(SecretStr(url), "test", 3)
    with ExitStack() as stack:
        stack.callback(pool.close)
        with pool.transaction():  # another thread needs another connection
            other = threading.Thread(target=pool.execute, args=("SELECT 1",))
            other.start()
            other.join(60)
        assert count(application, OURS) == 2
        application.execute(f"SELECT pg_terminate_backend(pid) FROM {OURS}".encode())
        with pytest.raises(psycopg.OperationalError):
            pool.execute("SELECT 1")
        assert pool.execute("SELECT 1").fetchone() == (1,)


def test_a_pool_that_cannot_connect_says_why_and_is_not_used_up() -> None:
    pool = Pool(SecretStr("postgresql://localhost:1/nowhere"), "test", 1)
    for _ in range(3):
        with pytest.raises(DatabaseError):
            pool.execute("SELECT 1")
