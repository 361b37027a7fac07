"""Whoever else may hold a table: DDL of the application's, rows that refer to it, autovacuum, a prepared
transaction."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from freshvec.embedded import EmbeddedPostgres
from freshvec.errors import LockedError
from tests.integration.at_rest import Kept
from tests.integration.locking import apply_to, open_transaction, remove_from
from tests.support import count, exists, sync_of, until


def test_rows_that_refer_to_the_table_do_not_keep_it_from_being_watched(kept: Kept) -> None:
    kept.app.execute("CREATE TABLE likes (doc int REFERENCES docs)")
    with open_transaction(kept, "INSERT INTO likes VALUES (1)"):
        assert apply_to(kept)
        with pytest.raises(LockedError, match="reports"):
            remove_from(kept)
        kept.app.execute("SET statement_timeout = '5s'")
        kept.app.execute("INSERT INTO likes VALUES (1)")
    assert remove_from(kept)


def test_the_application_s_ddl_comes_first(kept: Kept) -> None:
    """It waits for a reader, whom apply need not wait for, and nobody may stand before it."""
    alter = "ALTER TABLE docs ADD COLUMN more text"
    with ThreadPoolExecutor() as pool, open_transaction(kept, "SELECT * FROM docs") as reader:
        altering = pool.submit(kept.app.execute, alter.encode())
        with psycopg.connect(kept.url, autocommit=True) as looking:
            until("it waits", lambda: count(looking, "pg_locks WHERE NOT granted") == 1)
        with pytest.raises(LockedError, match=f'runs "{alter}"'):
            apply_to(kept)
        reader.commit()
        altering.result(60)
    assert apply_to(kept)


def test_an_index_is_made_concurrently_to_its_end(kept: Kept) -> None:
    create = "CREATE INDEX CONCURRENTLY docs_body ON docs (body)"
    with ThreadPoolExecutor() as pool, psycopg.connect(kept.url) as old:
        old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        old.execute("SELECT count(*) FROM pg_class")  # a snapshot that the index waits for
        creating = pool.submit(kept.app.execute, create.encode())
        index = "pg_index WHERE indexrelid = to_regclass('docs_body') AND indisready AND NOT indisvalid"
        with psycopg.connect(kept.url, autocommit=True) as looking:
            until("it waits", lambda: count(looking, index) == 1)
        with pytest.raises(LockedError, match=r'runs "CREATE INDEX CONCURRENTLY'):
            apply_to(kept)
        old.commit()
        creating.result(60)
    assert apply_to(kept)
    assert count(kept.app, "pg_index WHERE indexrelid = 'docs_body'::regclass AND indisvalid") == 1


def test_a_table_that_is_dropped_while_its_triggers_are(kept: Kept) -> None:
    apply_to(kept)
    with ThreadPoolExecutor() as pool, open_transaction(kept, "DROP TABLE docs") as session:
        removing = pool.submit(remove_from, kept, 60.0)
        waits = "pg_locks WHERE NOT granted AND locktype = 'relation'"
        until("remove waits", lambda: count(kept.app, waits) == 1)
        session.commit()
        assert removing.result(60)
    assert not exists(kept.app, "docs_embedding")


@pytest.fixture(scope="module")
def busy_server() -> Iterator[str]:
    """A server that vacuums at once and slowly, and takes prepared transactions."""
    options: dict[str, Any] = {
        "autovacuum_naptime": "1s",
        "deadlock_timeout": "300ms",
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
