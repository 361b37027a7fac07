"""Bulk work waits while a replica lags or a checkpoint is late, where that is asked for; live changes go
on."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
from loguru import logger
from pydantic import SecretStr

from freshvec.db import connect
from freshvec.embedded import EmbeddedPostgres
from freshvec.health.status import read
from freshvec.pipeline.pressure import Pressure
from freshvec.worker.activity import Activity
from tests.standby import Standby, server_with_docs
from tests.support import (
    Connection,
    NullEncoder,
    content_hash,
    count,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
)


def fresh(docs: Connection, row: int, text: str) -> bool:
    hashed = "SELECT content_hash FROM docs_embedding WHERE id = %s"
    return docs.execute(hashed, (row,)).fetchone() == (content_hash(text),)


def test_a_replica_that_stands_still_makes_bulk_work_wait() -> None:
    with server_with_docs() as server, Standby(server) as standby:
        settings = settings_for(server.url(), sync_of("docs"), pause_at_lag_seconds=1.5)
        with (
            psycopg.connect(server.url(), autocommit=True) as docs,
            psycopg.connect(standby.url(), autocommit=True) as replica,
            running(settings, NullEncoder()) as worker,
            connect(settings.database.url, "test") as looking,
        ):
            wait_fresh(worker)
            replica.execute("SELECT pg_wal_replay_pause()")

            def is_paused() -> bool:
                docs.execute("UPDATE docs SET body = 'one more' || clock_timestamp() WHERE id = 1")
                return read(looking)[0]["paused"] is not None or bool(
                    count(docs, "freshvec.activity WHERE paused LIKE 'replica % lags % s'")
                )

            until("the lag is seen", is_paused)
            docs.execute("UPDATE docs SET body = 'in bulk' WHERE id > 100")
            docs.execute("UPDATE docs SET body = 'live' WHERE id = 2")
            until("the live change is fresh", lambda: fresh(docs, 2, "live"))
            docs.execute("SELECT freshvec.ask_for_walk('docs', 'test')")
            assert not fresh(docs, 200, "in bulk")
            assert count(docs, "freshvec.queue_docs WHERE bulk") == 200
            assert count(docs, "freshvec.rescan") == 1
            (row,) = read(looking)
            assert row["paused"].startswith("replica ")
            shown = docs.execute("SELECT paused, queued, eta_seconds FROM freshvec.progress").fetchone()
            assert shown == (row["paused"], 200, None)
            replica.execute("SELECT pg_wal_replay_resume()")
            until("bulk work goes on", lambda: fresh(docs, 200, "in bulk"))
            wait_fresh(worker)
            worker.housekeep()
            assert read(looking)[0]["paused"] is None


FILL = "INSERT INTO public.filled SELECT repeat(md5(g::text), 60) FROM generate_series(1, 40000) g"


@contextmanager
def with_checkpoints(**options: str) -> Iterator[Connection]:
    """A session of ours in a server that begins checkpoints for their WAL alone, by default 1 GB."""
    with (
        EmbeddedPostgres(18, None, checkpoint_timeout="1h", **options) as server,
        connect(settings_for(server.url()).database.url, "test") as connection,
    ):
        connection.execute("CREATE TABLE public.filled (body text)")
        connection.execute("ALTER TABLE public.filled ALTER body SET STORAGE external")
        connection.execute("CHECKPOINT")
        yield connection


def test_a_late_checkpoint_is_pressure() -> None:
    pressure = Pressure(10.0)
    with with_checkpoints(max_wal_size="32MB") as connection:
        pressure.look(connection)
        assert not pressure.is_felt

        def is_felt(*, filling: bool) -> bool:
            if filling:
                connection.execute(FILL)
            pressure.look(connection)
            return pressure.is_felt

        until("WAL grows faster than checkpoints end", lambda: is_felt(filling=True))
        assert str(pressure.reason).startswith("a checkpoint is late")
        until("the pause is over", lambda: not is_felt(filling=False))


def test_a_checkpoint_that_takes_its_time_is_none() -> None:
    """Whatever the WAL: it would not hurry while nobody writes, so bulk work would wait for it for long."""
    pressure = Pressure(10.0)
    with (
        with_checkpoints() as connection,
        connect(SecretStr(connection.info.dsn), "backup") as backup,
        ThreadPoolExecutor() as threads,
    ):
        connection.execute(FILL)
        begun = threads.submit(backup.execute, "SELECT pg_backup_start('test', fast => false)")
        rests = "pg_stat_activity WHERE wait_event = 'CheckpointWriteDelay'"
        shown = "SELECT current_setting('max_wal_size')"
        try:
            until("a checkpoint is under way", lambda: count(connection, rests))
            connection.execute("ALTER SYSTEM SET max_wal_size = '32MB'")
            connection.execute("SELECT pg_reload_conf()")
            until("that is in force", lambda: connection.execute(shown).fetchone() == ("32MB",))
            for _ in range(10):
                pressure.look(connection)
                assert not pressure.is_felt
        finally:
            connection.execute("CHECKPOINT")
            begun.result()


def test_a_role_that_may_not_see_replicas_is_told_the_grant_once(url: str, application: Connection) -> None:
    application.execute("CREATE ROLE sees_little LOGIN")
    messages: list[str] = []
    sink = logger.add(messages.append, format="{message}")
    try:
        given = settings_for(url.replace("postgres:@", "sees_little:@")).database.url
        with connect(given, "test") as connection:
            pressure = Pressure(1.0)
            for _ in range(3):
                pressure.look(connection)
            assert not pressure.is_felt
            assert len(messages) == 1
            assert 'GRANT pg_read_all_stats TO "sees_little"' in messages[0]
            application.execute("GRANT pg_read_all_stats TO sees_little")
            other = Pressure(1.0)
            other.look(connection)
            assert len(messages) == 1
    finally:
        logger.remove(sink)
        application.execute("DROP ROLE sees_little")


def test_where_nobody_can_look_nothing_waits() -> None:
    """A role may have all the sessions that it may have."""
    pressure = Pressure(1.0)
    pressure.reason = "replica r lags 9 s"
    activity = Activity(settings_for("host=/nonexistent", sync_of("docs")), pressure)
    activity.feel_pressure()
    assert not pressure.is_felt
