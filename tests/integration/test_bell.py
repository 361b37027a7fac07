"""The bell on a real server: nothing is missed, nobody rings for nothing, and no commit fails for it."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from freshvec.capture.bell import Bell
from freshvec.db import connect
from freshvec.embedded import EmbeddedPostgres
from freshvec.worker.worker import Worker
from tests.staleness import stale
from tests.support import (
    Connection,
    NullEncoder,
    backfill,
    count,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
)


@pytest.fixture
def applied(url: str, docs: Connection) -> str:
    backfill(settings_for(url, sync_of("docs")), NullEncoder())
    return url


def heard(docs: Connection, change: str) -> list[str]:
    """The syncs that a change rings for."""
    with psycopg.connect(docs.info.dsn, autocommit=True) as listening:
        listening.execute("LISTEN freshvec")
        docs.execute(change)
        docs.execute("SELECT pg_notify('freshvec', 'end')")
        return _until_end(listening)


def _until_end(listening: Connection) -> list[str]:
    """What is heard before `end`."""
    heard: list[str] = []
    while "end" not in heard:
        heard += [note.payload for note in listening.notifies(timeout=30, stop_after=1)]
    return heard[: heard.index("end")]


def is_taken(docs: Connection) -> bool:
    """Whether the sync's keeper wants to be rung."""
    taken = "pg_locks WHERE locktype = 'advisory' AND classid::bigint = 1719035237 AND mode = 'ExclusiveLock'"
    return bool(
        count(
            docs, taken + " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
    )


@contextmanager
def kept(docs: Connection, **daemon: object) -> Iterator[Worker]:
    """The table kept by a worker that never sweeps."""
    settings = settings_for(docs.info.dsn, sync_of("docs"), **{"sweep_seconds": 3600.0, **daemon})
    with running(settings, NullEncoder()) as worker:
        wait_fresh(worker)
        yield worker


def await_embedded(docs: Connection) -> None:
    until("every row is embedded", lambda: stale(docs, NullEncoder()) == [])


def test_nobody_rings_while_no_worker_is_there(applied: str, docs: Connection) -> None:
    assert heard(docs, "INSERT INTO docs VALUES (1, 'a')") == []


def test_a_quiet_worker_is_rung(docs: Connection) -> None:
    with kept(docs):
        until("it wants to be rung", lambda: is_taken(docs))
        assert heard(docs, "INSERT INTO docs VALUES (1, 'a')") == ["docs"]
        await_embedded(docs)
        assert is_taken(docs), "few changes are no reason to poll"
    assert heard(docs, "INSERT INTO docs VALUES (2, 'a')") == []


def test_one_who_edits_and_waits_is_no_reason_to_poll(docs: Connection) -> None:
    """However quickly: each change is rung for, since nobody waits for that."""
    docs.execute("INSERT INTO docs VALUES (1, '')")
    with kept(docs) as worker:
        polling = worker.keepers[0].pipeline.polling  # type: ignore[union-attr]
        until("it wants to be rung", lambda: is_taken(docs))
        for turn in range(60):
            docs.execute("UPDATE docs SET body = %s", (f"turn {turn}",))
            until("it is embedded", lambda: count(docs, "freshvec.queue_docs") == 0)
            assert polling.is_rung


def test_who_edits_and_waits_is_seldom_asked_about(applied: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether writers wait for one another: each look takes time from the change that rang."""
    asked: list[object] = []
    now = 1000.0
    execute = psycopg.Connection.execute

    def noted(connection: Connection, query: Any) -> Any:
        asked.append(query)
        return execute(connection, query)

    with connect(SecretStr(applied), "test") as connection:
        bell = Bell("docs")
        assert bell.take(connection)
        monkeypatch.setattr(psycopg.Connection, "execute", noted)
        monkeypatch.setattr("freshvec.capture.bell.time.monotonic", lambda: now)
        for _ in range(100):
            bell.is_too_loud(1, connection)
            now += 0.005
        assert len(asked) == 6, "at 20, 45 and 95 ms, and then every 100"
        asked.clear()
        now += 1.0  # nobody rings
        for _ in range(8):
            bell.is_too_loud(1, connection)
        assert len(asked) == 1, "and then soon again"


def test_one_who_edits_and_waits_from_the_start_is_soon_followed_by_the_bell(docs: Connection) -> None:
    """No tenth of a second passes without a change, and yet polling is no way to follow so few."""
    docs.execute("INSERT INTO docs VALUES (1, '')")
    with kept(docs) as worker:
        until("it is kept", lambda: worker.keepers[0].is_fresh)
        for turn in range(300):
            docs.execute("UPDATE docs SET body = %s", (f"turn {turn}",))
            until("it is embedded", lambda: count(docs, "freshvec.queue_docs") == 0)
            if is_taken(docs):
                return
        raise AssertionError("it polls all the time")


def test_where_writers_wait_for_one_another_it_polls_until_it_is_quiet(docs: Connection) -> None:
    with kept(docs) as worker, ExitStack() as stack:
        until("it wants to be rung", lambda: is_taken(docs))
        polling = worker.keepers[0].pipeline.polling  # type: ignore[union-attr]

        def write(first: int) -> None:
            with psycopg.connect(docs.info.dsn, autocommit=True) as session:
                for number in itertools.count(first, 4):
                    if not polling.is_rung:
                        return
                    session.execute("INSERT INTO docs VALUES (%s, 'a')", (number,))

        writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for writer in writers:
            writer.start()
            stack.callback(writer.join, 60)
        until("nobody rings", lambda: not polling.is_rung)
        await_embedded(docs)
        until("it is quiet, and wants to be rung again", lambda: is_taken(docs))
        docs.execute("INSERT INTO docs VALUES (-1, 'a')")
        await_embedded(docs)


def test_a_writer_that_was_not_to_ring_is_waited_for(docs: Connection) -> None:
    """A transaction that began while the worker polled holds it off until its end, and is found."""
    with psycopg.connect(docs.info.dsn) as session:
        backfill(settings_for(docs.info.dsn, sync_of("docs")), NullEncoder())
        session.execute("INSERT INTO docs VALUES (1, 'a')")
        with kept(docs) as worker:
            docs.execute("INSERT INTO docs VALUES (2, 'b')")
            until("the other is embedded", lambda: count(docs, "docs_embedding") == 1)
            polling = worker.keepers[0].pipeline.polling  # type: ignore[union-attr]
            until("it has become quiet", lambda: polling.pause() > 0.03)
            assert not is_taken(docs)
            session.commit()
            await_embedded(docs)
            until("it wants to be rung", lambda: is_taken(docs))


def test_a_worker_that_polls_is_never_rung(docs: Connection) -> None:
    with kept(docs, wake="poll"):
        assert heard(docs, "INSERT INTO docs VALUES (1, 'a')") == []
        await_embedded(docs)
        docs.execute("UPDATE docs SET body = 'b'")
        await_embedded(docs)
        assert not is_taken(docs)


@contextmanager
def server_with(setting: str) -> Iterator[Connection]:
    """The table on a server of its own, with a setting that needs a start."""
    with EmbeddedPostgres(18) as server:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM SET {setting}".encode())
        server.run("pg_ctl", "-D", str(server.data), "-m", "immediate", "-w", "stop")
        server.start()
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
            connection.execute("CREATE TABLE docs (id bigint PRIMARY KEY, body text)")
            yield connection


def test_a_transaction_can_be_prepared() -> None:
    with server_with("max_prepared_transactions = 4") as strict, kept(strict) as worker:
        polling = worker.keepers[0].pipeline.polling  # type: ignore[union-attr]
        until("it has become quiet", lambda: polling.pause() > 0.03)
        strict.execute("BEGIN; INSERT INTO docs VALUES (1, 'a'); PREPARE TRANSACTION 'one'")
        strict.execute("COMMIT PREPARED 'one'")
        await_embedded(strict)
        strict.execute("BEGIN; ALTER TABLE docs ADD x int; PREPARE TRANSACTION 'two'")
        strict.execute("COMMIT PREPARED 'two'")
        strict.execute(
            "BEGIN; SAVEPOINT s; INSERT INTO docs VALUES (2, 'b'); RELEASE s;"
            " SAVEPOINT s; DELETE FROM docs; ROLLBACK TO s; PREPARE TRANSACTION 'three'"
        )
        strict.execute("COMMIT PREPARED 'three'")
        await_embedded(strict)
        strict.execute("BEGIN; TRUNCATE docs; INSERT INTO docs VALUES (3, 'c'); PREPARE TRANSACTION 'four'")
        strict.execute("COMMIT PREPARED 'four'")
        await_embedded(strict)


def fill_queue(connection: Connection) -> None:
    while True:
        connection.execute("SELECT pg_notify('other', repeat('x', 7000) || g) FROM generate_series(1, 20) g")


def test_a_full_notification_queue_costs_freshness_and_fails_no_write() -> None:
    """Somebody listens, and does not read: their transaction goes on."""
    with (
        server_with("max_notify_queue_pages = 64") as strict,
        psycopg.connect(strict.info.dsn) as careless,
        kept(strict, sweep_seconds=1.0),
    ):
        until("it wants to be rung", lambda: is_taken(strict))
        careless.execute("LISTEN other")
        careless.commit()
        careless.execute("SELECT 1")
        with pytest.raises(psycopg.errors.ProgramLimitExceeded):
            fill_queue(strict)
        strict.execute("INSERT INTO docs VALUES (1, 'a')")
        strict.execute("ALTER TABLE docs ADD x int")
        strict.execute("TRUNCATE docs")
        strict.execute("INSERT INTO docs VALUES (2, 'a')")
        await_embedded(strict)
        until("it polls", lambda: not is_taken(strict))
        careless.rollback()
        strict.execute("SELECT pg_notification_queue_usage()")
        until("it wants to be rung again", lambda: is_taken(strict))
