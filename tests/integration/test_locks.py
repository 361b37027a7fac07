"""Locks on the application's tables: given up soon, no deadlock, and who is in the way is named."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from freshvec.db import connect
from freshvec.embedded import EmbeddedPostgres
from freshvec.errors import LockedError
from freshvec.records import Model
from freshvec.schema import migrations
from freshvec.schema.apply import apply, remove
from freshvec.schema.plan import plan
from tests.integration.at_rest import Kept
from tests.support import MODEL, Connection, NullEncoder, count, exists, running, sync_of, until

NULL = Model(MODEL, 8, 256, NullEncoder.fingerprint)
LONG = "UPDATE docs SET body = 'the beginning of a text' WHERE id = 1 AND views = 0 -- and what is secret"


def apply_to(kept: Kept, patience: float = 0.0) -> bool:
    with connect(kept.settings.database.url, "apply") as connection:
        migrations.migrate(connection)
        return apply(connection, kept.settings.sync[0], NULL, patience=patience)[1]


def remove_from(kept: Kept, patience: float = 0.0) -> bool:
    with connect(kept.settings.database.url, "remove") as connection:
        return remove(connection, "docs", patience)


@contextmanager
def open_transaction(kept: Kept, statement: str, name: str = "reports") -> Iterator[Connection]:
    """A transaction of the application's that has run a statement."""
    with psycopg.connect(kept.url, application_name=name) as session:
        session.execute(statement.encode())
        yield session


def is_older_than(kept: Kept, session: Connection, seconds: float) -> bool:
    where = f"pid = {session.info.backend_pid} AND clock_timestamp() - xact_start > '{seconds} s'"
    return count(kept.app, f"pg_stat_activity WHERE {where}") == 1


def has_triggers(kept: Kept) -> bool:
    on_source = "tgrelid NOT IN (SELECT c.oid FROM pg_class c WHERE c.relname = 'docs_embedding')"
    return count(kept.app, f"pg_trigger WHERE tgname LIKE 'freshvec%' AND {on_source}") > 0


@pytest.fixture
def partitioned(kept: Kept) -> Kept:
    kept.app.execute("DROP TABLE docs")
    kept.app.execute("CREATE TABLE docs (id int PRIMARY KEY, body text) PARTITION BY RANGE (id)")
    for number in range(3):
        bounds = f"FROM ({number * 100}) TO ({number * 100 + 100})"
        kept.app.execute(f"CREATE TABLE docs_{number} PARTITION OF docs FOR VALUES {bounds}".encode())
    kept.app.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(0, 299) g")
    return kept


@pytest.mark.parametrize("seconds", [0.0, 1.1], ids=["new", "old"])
def test_who_is_in_the_way_is_named_and_little_of_what_it_runs(kept: Kept, seconds: float) -> None:
    with open_transaction(kept, LONG) as session:
        until("it has been there for long", lambda: is_older_than(kept, session, seconds))
        with pytest.raises(LockedError) as refused:
            apply_to(kept)
        for part in (
            "public.docs",
            f"reports (pid {session.info.backend_pid}, user postgres, in a transaction since ",
            " UTC)",
            "last ran: UPDATE docs SET body = 'the beginning of a text' WHERE id ",
        ):
            assert part in str(refused.value)
        assert "secret" not in str(refused.value)
        assert not has_triggers(kept)
        session.commit()
    assert apply_to(kept)
    assert has_triggers(kept)
    assert not apply_to(kept)


def test_nothing_is_asked_for_while_somebody_is_in_the_way_for_long(kept: Kept) -> None:
    with open_transaction(kept, LONG) as session, ThreadPoolExecutor() as pool:
        applying = pool.submit(apply_to, kept, 60.0)
        until("it is there for long", lambda: is_older_than(kept, session, 2.0))
        until("apply waits", lambda: count(kept.app, "freshvec.sync") == 1)
        while not is_older_than(kept, session, 4.0):
            assert count(kept.app, "pg_locks WHERE NOT granted") == 0
        assert not applying.done()
        session.commit()
        assert applying.result(60)


def test_a_request_that_waits_is_given_up_soon(kept: Kept) -> None:
    """Transactions that are new each time, so that apply does ask, and never get so old as to be left
    alone."""
    waits = """SELECT max(extract(epoch FROM clock_timestamp() - waitstart)) FROM pg_locks
                WHERE NOT granted AND locktype = 'relation'"""
    longest, requests = 0.0, 0
    with ThreadPoolExecutor() as pool, psycopg.connect(kept.url) as one, psycopg.connect(kept.url) as other:
        one.execute("UPDATE docs SET body = 'one' WHERE id = 1")
        applying = pool.submit(apply_to, kept, 60.0)
        for turn in range(8):
            last, following = (one, other) if turn % 2 == 0 else (other, one)
            while not is_older_than(kept, last, 0.4):
                (waited,) = kept.app.execute(waits).fetchone() or (None,)
                longest, requests = max(longest, float(waited or 0)), requests + (waited is not None)
            following.execute(f"UPDATE docs SET body = 'next' WHERE id = {turn + 10}".encode())
            last.commit()
        assert not applying.done()
        one.commit()
        other.commit()
        assert applying.result(60)
    assert requests > 0
    assert longest < 0.5  # 0.08, and what a busy machine adds


def test_an_apply_that_was_cut_off_is_shown_and_ended_by_a_worker(kept: Kept) -> None:
    with open_transaction(kept, LONG):
        with pytest.raises(LockedError):
            apply_to(kept)
        assert exists(kept.app, "docs_embedding")
        assert not has_triggers(kept)
        kept.app.execute("UPDATE docs SET body = 'unseen' WHERE id = 7")
    with kept.running() as worker:
        kept.comes_to_rest(worker)


def test_what_was_missed_before_an_apply_was_cut_off_is_walked(kept: Kept) -> None:
    with kept.running():
        pass
    kept.app.execute("DROP VIEW docs_embedded")
    kept.app.execute("DROP TRIGGER freshvec_docs_update ON docs")
    with open_transaction(kept, LONG), pytest.raises(LockedError):
        apply_to(kept)
    assert exists(kept.app, "docs_embedded")
    kept.app.execute("UPDATE docs SET body = 'unseen' WHERE id = 7")
    with kept.running() as worker:
        kept.comes_to_rest(worker)


def test_a_worker_names_who_is_in_the_way_and_keeps_its_other_syncs(kept: Kept) -> None:
    kept.app.execute("CREATE TABLE notes (id int PRIMARY KEY, body text)")
    kept.app.execute("INSERT INTO notes VALUES (1, 'one')")
    notes = kept.settings.model_validate(
        {**kept.settings.model_dump(), "sync": [kept.sync, sync_of("notes", "notes")]}
    )
    with open_transaction(kept, LONG) as session, running(notes, kept.encoder) as worker:
        trouble = "freshvec.sync WHERE name = 'docs' AND trouble LIKE '%reports (pid%is in the way%'"
        until("there is a sync", lambda: exists(kept.app, "notes_embedding"))
        until("status names it", lambda: count(kept.app, trouble) == 1)
        until("the other is fresh", lambda: count(kept.app, "notes_embedding") == 1)
        kept.app.execute("UPDATE notes SET body = 'two'")
        until("edits are followed", lambda: count(kept.app, "freshvec.queue_notes") == 0)
        session.commit()
        until("this one is fresh", lambda: worker.keepers[0].is_fresh)
        until("nothing is said any more", lambda: kept.status()["last_error"] is None)


def test_another_definition_needs_no_lock_of_the_table(kept: Kept) -> None:
    apply_to(kept)
    with open_transaction(kept, "LOCK TABLE docs IN SHARE ROW EXCLUSIVE MODE"):
        kept.sync = sync_of("docs", expression="upper(body)")
        assert apply_to(kept)


def test_another_definition_waits_for_no_writer_of_the_queue(kept: Kept) -> None:
    apply_to(kept)
    with open_transaction(kept, LONG):
        kept.sync = sync_of("docs", expression="upper(body)")
        assert apply_to(kept)


def test_a_plan_does_not_wait_for_a_table_that_is_altered(kept: Kept) -> None:
    apply_to(kept)
    with (
        open_transaction(kept, "LOCK TABLE docs"),
        connect(kept.settings.database.url, "test") as connection,
        pytest.raises(LockedError, match="reports"),
    ):
        plan(connection, kept.settings.sync[0], NULL)


def test_remove_lets_readers_go_on_and_names_the_one_in_the_way(kept: Kept) -> None:
    apply_to(kept)
    with open_transaction(kept, "SELECT * FROM docs"):
        with pytest.raises(LockedError, match="reports"):
            remove_from(kept)
        kept.app.execute("SET statement_timeout = '5s'")
        kept.app.execute("SELECT * FROM docs")
        assert not apply_to(kept), "nothing is half removed"
    assert remove_from(kept)
    assert not has_triggers(kept)
    assert not remove_from(kept)


def test_a_search_that_is_open_keeps_the_target_and_the_rest_goes_later(kept: Kept) -> None:
    apply_to(kept)
    with open_transaction(kept, "SELECT * FROM docs_embedding"):
        with pytest.raises(LockedError, match=r"docs_embedding: reports"):
            remove_from(kept)
        assert not has_triggers(kept)
        assert apply_to(kept), "its triggers come back"
        assert has_triggers(kept)
    assert remove_from(kept)
    assert not exists(kept.app, "docs_embedding")


@pytest.mark.parametrize("held", ["docs_1", "docs"])
def test_while_a_partition_is_held_the_others_are_written(partitioned: Kept, held: str) -> None:
    statement = f"UPDATE {held} SET body = 'held' WHERE id = 150"
    with open_transaction(partitioned, statement) as session, ThreadPoolExecutor() as pool:
        applying = pool.submit(apply_to, partitioned, 60.0)
        until("apply waits", lambda: exists(partitioned.app, "freshvec.sync"))
        partitioned.app.execute("SET statement_timeout = '5s'")
        while not is_older_than(partitioned, session, 2.0):
            partitioned.app.execute("UPDATE docs SET body = 'through the parent' WHERE id = 50")
            partitioned.app.execute("UPDATE docs_1 SET body = 'directly' WHERE id = 151")
        assert not applying.done()
        session.commit()
        assert applying.result(60)
    assert not apply_to(partitioned)
    assert remove_from(partitioned)


class Writers:
    """Transactions that change rows of two tables in any order, of each writer its own."""

    def __init__(self, url: str, number: int) -> None:
        self._url, self._number = url, number
        self._stopping = threading.Event()
        self.done = 0

    def stop(self) -> None:
        self._stopping.set()

    def run(self) -> int:
        with psycopg.connect(self._url, autocommit=True) as session:
            while not self._stopping.wait(random.uniform(0, 0.01)):
                tables = random.sample(["docs_0", "docs_1", "docs_2", "docs"], 2)
                with session.transaction():
                    for table in tables:
                        statement = f"UPDATE {table} SET body = 'edited' WHERE id % 100 = {self._number}"
                        session.execute(statement.encode())
                self.done += 1
        return self.done


def test_writers_that_take_partitions_in_any_order_never_deadlock(partitioned: Kept) -> None:
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    writers = [Writers(partitioned.url, number) for number in range(3)]
    with ThreadPoolExecutor() as pool:
        running_ones = [pool.submit(writer.run) for writer in writers]
        try:
            for _ in range(3):
                until("they write", lambda: all(writer.done > 0 for writer in writers))
                assert apply_to(partitioned, 60.0)
                assert remove_from(partitioned, 60.0)
        finally:
            for writer in writers:
                writer.stop()
        assert all(writer.result(60) for writer in running_ones), "none has failed"
    assert partitioned.app.execute(deadlocks).fetchone() == (0,)


@pytest.fixture(scope="module")
def busy_server() -> Iterator[str]:
    """A server that vacuums at once and slowly, and takes prepared transactions."""
    options: dict[str, Any] = {
        "autovacuum_naptime": "1s",
        "autovacuum_vacuum_cost_delay": "100ms",
        "autovacuum_vacuum_cost_limit": "1",
        "autovacuum_vacuum_threshold": "1000",
        "max_prepared_transactions": "5",
    }
    with EmbeddedPostgres(18, **options) as server:
        yield server.url()


@pytest.fixture
def busy(busy_server: str) -> Iterator[Kept]:
    with psycopg.connect(busy_server, autocommit=True) as app:
        app.execute("CREATE TABLE docs (id int PRIMARY KEY, body text, views int DEFAULT 0)")
        kept = Kept(busy_server, app, sync_of("docs", target={"type": "real[]"}))
        yield kept
        remove_from(kept, 10.0)
        app.execute("DROP TABLE docs")


def test_an_autovacuum_gives_way(busy: Kept) -> None:
    busy.app.execute("INSERT INTO docs SELECT g, repeat('text ', 200) FROM generate_series(1, 5000) g")
    busy.app.execute("UPDATE docs SET body = body || '.'")
    vacuum = """pg_locks JOIN pg_stat_activity a USING (pid) WHERE relation = 'docs'::regclass
                 AND backend_type = 'autovacuum worker' AND mode = 'ShareUpdateExclusiveLock'"""
    until("an autovacuum is there", lambda: count(busy.app, vacuum) > 0)
    with pytest.raises(LockedError, match="autovacuum"):
        apply_to(busy)
    assert apply_to(busy, 20.0)


def test_a_prepared_transaction_is_named(busy: Kept) -> None:
    busy.app.execute("BEGIN")
    busy.app.execute("INSERT INTO docs VALUES (1, 'text')")
    busy.app.execute("PREPARE TRANSACTION 'payment 7'")
    try:
        with pytest.raises(LockedError, match="prepared transaction 'payment 7' of postgres"):
            apply_to(busy)
    finally:
        busy.app.execute("COMMIT PREPARED 'payment 7'")
    assert apply_to(busy)
