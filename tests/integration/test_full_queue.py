"""A queue that was full is given up for a walk, and takes changes again as soon as that has begun."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import psycopg
import pytest

from freshvec.capture import queue
from freshvec.capture.queue import QUEUE_FULL
from freshvec.config import Settings
from freshvec.db import connect
from freshvec.errors import LockedError
from freshvec.schema import identity
from tests.integration.sharing import together
from tests.integration.stepwise import Bench, drain
from tests.staleness import stale
from tests.support import (
    Connection,
    NullEncoder,
    backfill,
    bound_sync,
    count,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
)

SMALL = 2**16
IS_ASKED = f"freshvec.rescan WHERE reason = '{QUEUE_FULL}'"


def declared(docs: Connection, **daemon: Any) -> Settings:
    daemon = {"sweep_seconds": 600.0, **daemon}
    return settings_for(docs.info.dsn, sync_of("docs", queue_bytes=SMALL), **daemon)


@pytest.fixture
def full(docs: Connection) -> Connection:
    """A table whose queue became full while no worker was there. No autovacuum helps."""
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 300) g")
    backfill(declared(docs), NullEncoder())
    docs.execute("ALTER TABLE freshvec.queue_docs SET (autovacuum_enabled = off)")
    overfill(docs)
    return docs


def overfill(docs: Connection) -> None:
    while not count(docs, IS_ASKED):
        docs.execute("UPDATE docs SET body = 'edited ' || clock_timestamp() WHERE id <= 60")


def size(docs: Connection) -> int:
    (found,) = docs.execute("SELECT pg_relation_size('freshvec.queue_docs')").fetchone() or (0,)
    return int(found)


def edit(docs: Connection, number: int) -> None:
    docs.execute("UPDATE docs SET body = %s WHERE id = 1", (f"text {number}",))


def is_noted(docs: Connection) -> bool:
    """Whether a change of this moment is."""
    with docs.transaction(force_rollback=True):
        before = count(docs, "freshvec.queue_docs")
        edit(docs, -1)
        return count(docs, "freshvec.queue_docs") > before


@contextmanager
def editing(docs: Connection) -> Iterator[None]:
    """Another session of the application, that changes rows and must never wait for long."""
    is_over = Event()

    def edits() -> None:
        with psycopg.connect(docs.info.dsn, autocommit=True, options="-c lock_timeout=1s") as session:
            while not is_over.is_set():
                session.execute("UPDATE docs SET body = 'text ' || clock_timestamp() WHERE id = 2")

    with ThreadPoolExecutor() as threads:
        done = threads.submit(edits)
        try:
            yield
        finally:
            is_over.set()
            done.result()


def walk(docs: Connection) -> tuple[Any, ...]:
    return docs.execute("SELECT walk_started_at FROM freshvec.sync").fetchone() or ()


def test_changes_are_noted_again_and_not_walked_for(full: Connection) -> None:
    with running(declared(full), NullEncoder()) as worker:
        wait_fresh(worker)
        walked = walk(full)
        for number in range(20):
            edit(full, number)
            wait_fresh(worker)
        assert is_noted(full)
        assert walk(full) == walked
        assert stale(full, NullEncoder()) == []


def test_a_snapshot_that_stays_open_elsewhere_is_not_in_the_way(full: Connection) -> None:
    with psycopg.connect(full.info.dsn) as elsewhere:
        elsewhere.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert count(elsewhere, "docs") == 300
        with running(declared(full), NullEncoder()) as worker:
            wait_fresh(worker)
            assert is_noted(full)


def test_the_new_file_is_nobody_elses_doing(full: Connection) -> None:
    """Which would be a reason to bind the sync again, and to walk once more."""
    with running(declared(full), NullEncoder()) as worker:
        wait_fresh(worker)
        with connect(declared(full).database.url, "test") as connection:
            bound = bound_sync(connection, declared(full), NullEncoder())
            assert identity.is_as_noted(connection, bound)
            full.execute("TRUNCATE freshvec.queue_docs")
            assert not identity.is_as_noted(connection, bound)


def test_nobody_waits_where_somebody_has_the_queue(full: Connection) -> None:
    """As a dump has every table, until it ends."""
    with psycopg.connect(full.info.dsn) as dump, running(declared(full), NullEncoder()) as worker:
        dump.execute("LOCK TABLE freshvec.queue_docs IN ACCESS SHARE MODE")
        overfill(full)
        with editing(full):
            walked = walk(full)
            until("another walk has begun", lambda: walk(full) != walked)
            assert size(full) > SMALL
            dump.rollback()
            until("changes are noted", lambda: is_noted(full))
        wait_fresh(worker)
        assert stale(full, NullEncoder()) == []


def test_a_queue_that_stays_full_is_walked_for_half_of_the_time(full: Connection) -> None:
    with psycopg.connect(full.info.dsn) as dump, running(declared(full), NullEncoder()) as worker:
        dump.execute("LOCK TABLE freshvec.queue_docs IN ACCESS SHARE MODE")
        wait_fresh(worker)
        overfill(full)
        until("that is answered", lambda: not count(full, IS_ASKED))
        walked = walk(full)
        edit(full, 1)
        until("another walk", lambda: walk(full) != walked)
        again = "SELECT walk_started_at - %s >= interval '0.9 s' FROM freshvec.sync"
        assert full.execute(again, walked).fetchone() == (True,)


def test_workers_that_share_the_sync_go_on(docs: Connection) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 2000) g")
    backfill(declared(docs), NullEncoder())
    with together(docs, 2, sync=sync_of("docs", queue_bytes=SMALL)) as workers:
        for worker in workers:
            wait_fresh(worker)
        with editing(docs):
            for number in range(3):
                overfill(docs)
                until("it takes changes again", lambda: is_noted(docs))
                docs.execute("UPDATE docs SET body = NULL WHERE id %% 7 = %s", (number,))
                docs.execute("DELETE FROM docs WHERE id %% 50 = %s", (number + 3,))
        until("nothing is stale", lambda: stale(docs, NullEncoder()) == [])


def test_what_was_handed_out_of_the_old_file_is_nothing_of_the_new_one(docs: Connection) -> None:
    bench = Bench(docs)
    with connect(bench.settings.database.url, "test") as connection, bench.reader() as reader:
        bound = bound_sync(connection, bench.settings, NullEncoder())
        bench.edit("before", row=1)
        handed_out = [entry for change in reader.read(9, [], bulk=False)[1] for entry in change.entries]
        assert drain(reader, list(handed_out)) == []
        queue.discard_file(connection, bound)
        assert reader.is_empty()
        bench.edit("after", row=2)
        (place,) = docs.execute("SELECT ctid::text FROM freshvec.queue_docs").fetchone() or ("",)
        assert place == handed_out[0].split()[2], "it has the same place"
        assert not reader.is_empty()
        assert drain(reader, list(handed_out)) == [("2",)]
        assert queue.delete(connection, bound, handed_out) == []
        assert count(docs, "freshvec.queue_docs") == 1


def test_what_an_open_transaction_has_noted_stays(docs: Connection) -> None:
    bench = Bench(docs)
    with connect(bench.settings.database.url, "test") as connection, bench.reader() as reader:
        bound = bound_sync(connection, bench.settings, NullEncoder())
        bench.edit("seen", row=1)
        with bench.session() as slow:
            bench.edit("noted", row=2, session=slow)
            with pytest.raises(LockedError):
                queue.discard_file(connection, bound)
            queue.discard(connection, bound)
            slow.commit()
        assert drain(reader, []) == [("2",)]
