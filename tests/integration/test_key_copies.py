"""A target that is large follows another key by a copy beside it, and nobody waits for that."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest

from freshvec.db import connect
from freshvec.errors import LockedError
from freshvec.schema.apply import remove
from tests.integration.at_rest import Kept
from tests.integration.locking import ON_18, apply_to
from tests.passages import OVERLAP, TOKENS
from tests.support import count, exists, running, sync_of, until


@contextmanager
def impatient(kept: Kept, statement: str) -> Iterator[list[float]]:
    """A session that runs the statement all the time; gives how long each took, in seconds."""
    seconds: list[float] = []
    is_over = threading.Event()

    def act() -> None:
        with psycopg.connect(kept.url, autocommit=True) as session:
            while not is_over.is_set():
                begun = time.monotonic()
                session.execute(statement.encode())
                seconds.append(time.monotonic() - begun)

    with ThreadPoolExecutor() as pool:
        acting = pool.submit(act)
        try:
            until("it is at it", lambda: seconds)
            yield seconds
        finally:
            is_over.set()
            acting.result(60)


def test_nobody_waits_while_a_large_target_follows(kept: Kept) -> None:
    """An index that takes long stands for one that is large."""
    with kept.running():
        pass
    kept.app.execute(
        """CREATE FUNCTION slow(id bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS
           'BEGIN PERFORM pg_sleep(0.02); RETURN id; END'"""
    )
    kept.app.execute("CREATE INDEX ON docs_embedding (slow(id))")
    kept.app.execute("ALTER TABLE docs ALTER id TYPE bigint")
    write, search = "UPDATE docs SET views = views + 1 WHERE id = 1", "SELECT count(*) FROM docs_embedded"
    with impatient(kept, write) as writes, impatient(kept, search) as searches:
        apply_to(kept, 60.0)
    assert max(writes) < 0.5
    assert max(searches) < 0.5
    with kept.running():
        kept.comes_to_rest()


def test_rows_are_copied_beside_the_target_while_it_is_used(kept: Kept) -> None:
    """Whoever copies is held up by a lock of the target's, which it asks for first of all."""
    with kept.running():
        pass
    kept.app.execute("ALTER TABLE docs ALTER id TYPE bigint")
    kept.app.execute(
        """CREATE FUNCTION slowly() RETURNS event_trigger LANGUAGE plpgsql AS
           'BEGIN IF tg_tag = ''CREATE TABLE'' THEN PERFORM pg_sleep(1); END IF; END'"""
    )
    kept.app.execute("CREATE EVENT TRIGGER slowly ON ddl_command_end EXECUTE FUNCTION slowly()")
    with impatient(kept, "SELECT count(*) FROM docs_embedded") as searches, ThreadPoolExecutor() as pool:
        applying = pool.submit(apply_to, kept, 60.0)
        until("it copies", lambda: count(kept.app, "pg_stat_activity WHERE wait_event = 'PgSleep'"))
        seen = len(searches)
        kept.app.execute("UPDATE docs SET body = 'meanwhile' WHERE id = 1")
        until("searches go on", lambda: len(searches) > seen + 10)
        kept.app.execute("DROP EVENT TRIGGER slowly")
        applying.result(60)
    with kept.running():
        kept.comes_to_rest()


@ON_18
def test_a_worker_that_copies_does_everything_else_meanwhile(kept: Kept) -> None:
    """Here it is told to end. Its main loop would be killed for a copy that takes minutes."""
    with kept.running():
        pass
    kept.app.execute("ALTER TABLE docs ALTER id TYPE bigint")
    kept.app.execute(
        """CREATE FUNCTION held() RETURNS event_trigger LANGUAGE plpgsql AS
           'BEGIN IF current_query() ~ ''CREATE TABLE .*rekeyed'' THEN
              PERFORM pg_advisory_lock(20); END IF; END'"""
    )
    kept.app.execute("CREATE EVENT TRIGGER held ON ddl_command_end EXECUTE FUNCTION held()")
    kept.app.execute("SELECT pg_advisory_lock(20)")
    with running(kept.settings, kept.encoder):
        until("it copies", lambda: count(kept.app, "pg_locks WHERE objid = 20 AND NOT granted"))
        seen_at = time.monotonic()
    assert time.monotonic() - seen_at < 10, "it has not ended before its copy"
    assert count(kept.app, "pg_locks WHERE objid = 20 AND NOT granted")
    kept.app.execute("DROP EVENT TRIGGER held; SELECT pg_advisory_unlock_all()")
    with kept.running():
        kept.comes_to_rest()


@ON_18
def test_a_copy_that_has_not_taken_its_place_does_so_later_or_is_removed(kept: Kept) -> None:
    """Its worker ended between the two transactions, here by a target that was in use for longer."""
    with kept.running():
        encoded = kept.encoder.encoded
    kept.app.execute("ALTER TABLE docs ALTER id TYPE bigint")
    with psycopg.connect(kept.url) as session:
        session.execute("SELECT FROM docs_embedding")
        with pytest.raises(LockedError):
            apply_to(kept)
        assert exists(kept.app, "freshvec.rekeyed_docs")
    made = "SELECT oid FROM pg_class WHERE oid = %s::regclass"
    copy = kept.app.execute(made, ("freshvec.rekeyed_docs",)).fetchone()
    with kept.running():
        kept.comes_to_rest()
    assert kept.app.execute(made, ("docs_embedding",)).fetchone() == copy
    assert kept.encoder.encoded - encoded < 10
    kept.app.execute("ALTER TABLE docs ALTER id TYPE numeric")
    with psycopg.connect(kept.url) as session:
        session.execute("SELECT FROM docs_embedding")
        with pytest.raises(LockedError):
            apply_to(kept)
    with connect(kept.settings.database.url, "remove") as connection:
        assert remove(connection, "docs")
    assert not exists(kept.app, "freshvec.rekeyed_docs")


@ON_18
def test_a_copy_that_came_too_late_is_dropped(kept: Kept) -> None:
    with kept.running():
        pass
    kept.app.execute("ALTER TABLE docs ALTER id TYPE bigint")
    with psycopg.connect(kept.url) as session:
        session.execute("SELECT FROM docs_embedding")
        with pytest.raises(LockedError):
            apply_to(kept)
    kept.app.execute("ALTER TABLE docs ALTER id TYPE int")
    assert apply_to(kept)
    assert not exists(kept.app, "freshvec.rekeyed_docs")
    assert not apply_to(kept)


@ON_18
def test_rows_and_passages_are_copied_as_of_one_moment(kept: Kept) -> None:
    """A row is deleted between the two, and comes again with the same text, which its hash tells."""
    kept.sync = sync_of("docs", chunk={"tokens": TOKENS, "overlap": OVERLAP})
    with kept.running():
        pass
    kept.app.execute("ALTER TABLE docs ALTER id TYPE bigint")
    with psycopg.connect(kept.url) as session, ThreadPoolExecutor() as pool:
        session.execute("LOCK docs_chunk")
        applying = pool.submit(apply_to, kept, 60.0)
        until("it copies", lambda: count(kept.app, "pg_locks WHERE NOT granted"))
        session.execute("SET freshvec.is_ours = on; DELETE FROM docs_embedding WHERE id = 1")
        session.commit()
        applying.result(60)
    with kept.running():
        assert count(kept.app, "docs_embedded WHERE id = 1") == 1
