"""A statement of the application's that is at noting a change while its table gets another key, and the queue
with it: it does not fail, and its row is made fresh."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest

from tests.integration.at_rest import Kept
from tests.integration.locking import apply_to
from tests.support import Connection, count, running, until

TABLES = {
    "ordinary": "CREATE TABLE docs (n int DEFAULT 1, id int, body text, code {}, PRIMARY KEY (n, id))",
    "partitioned": """CREATE TABLE docs (n int DEFAULT 1, id int, body text, code {}, PRIMARY KEY (n, id))
        PARTITION BY LIST (n); CREATE TABLE docs_1 PARTITION OF docs FOR VALUES IN (1)""",
    "inherited": """CREATE TABLE docs (n int DEFAULT 1, id int, body text, code {}, PRIMARY KEY (n, id));
        CREATE TABLE docs_1 (PRIMARY KEY (n, id)) INHERITS (docs)""",
}
KEYS = {
    "of another type": ("text", "(n, code)"),
    "alike": ("int", "(n, code)"),
    "longer": ("text", "(n, id, code)"),
}
# Whoever replaces the queue stands still until it is told to go on, lock in hand.
STAND = """
CREATE FUNCTION stand() RETURNS event_trigger LANGUAGE plpgsql SET lock_timeout = 0 AS $$ BEGIN
  IF EXISTS (SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND mode = 'AccessExclusiveLock'
                AND relation = to_regclass('freshvec.queue_docs')) THEN
    PERFORM pg_advisory_xact_lock_shared(42);
  END IF;
END $$;
CREATE EVENT TRIGGER stand ON ddl_command_start EXECUTE FUNCTION stand()
"""


@pytest.fixture(params=TABLES)
def replaced(request: pytest.FixtureRequest, either_url: str, app: Connection) -> Iterator[Kept]:
    kept = Kept(either_url, app)
    kept.table = request.param
    yield kept
    kept.close()


@contextmanager
def while_the_queue_is_replaced(kept: Kept, looking: Connection) -> Iterator[None]:
    """What runs within finds the queue locked, and new functions and another queue once it may go on."""
    looking.execute(STAND.encode())
    looking.execute("SELECT pg_advisory_lock(42)")
    with ThreadPoolExecutor() as pool:
        applying = pool.submit(apply_to, kept, 60.0)
        try:
            until("it stands", lambda: count(looking, "pg_locks WHERE NOT granted AND objid = 42"))
            yield
        finally:
            looking.execute("DROP EVENT TRIGGER stand")
            looking.execute("SELECT pg_advisory_unlock(42)")
        assert applying.result(60)


@pytest.mark.parametrize("key", KEYS)
def test_a_statement_that_waits_while_the_key_is_replaced(replaced: Kept, app: Connection, key: str) -> None:
    kept, (code, columns) = replaced, KEYS[key]
    table = "docs" if kept.table == "ordinary" else "docs_1"
    app.execute(TABLES[kept.table].format(code).encode())
    fill = "(id, body, code) SELECT g, 'text', g + 5 FROM generate_series(1, 9) g"
    app.execute(f"INSERT INTO {table} {fill}".encode())
    kept.table, kept.key = "docs", "code" if "code" in columns else "id"
    with kept.running():
        pass
    session = psycopg.connect(kept.url)
    with psycopg.connect(kept.url, autocommit=True) as looking, ThreadPoolExecutor() as pool, session:
        session.execute("UPDATE docs SET body = 'noted' WHERE id = 1")
        session.commit()
        app.execute("ALTER TABLE docs DROP CONSTRAINT docs_pkey")
        app.execute(f"ALTER TABLE docs ADD PRIMARY KEY {columns}".encode())
        with while_the_queue_is_replaced(kept, looking):
            edit = "UPDATE docs SET body = 'another text' WHERE id = 2"
            editing = pool.submit(session.execute, edit.encode())
            waits = f"pg_locks WHERE NOT granted AND pid = {session.info.backend_pid}"
            until("the edit waits", lambda: count(looking, waits))
        editing.result(60)
        with running(kept.settings, kept.encoder):
            until("the walk has been there", lambda: kept.status()["backfill_done"])
            session.commit()
            until("its row is right", kept.is_right)
