"""DDL on a table that is kept is looked at at once, where an event trigger may be created."""

import psycopg
import pytest

from tests.support import Connection, NullEncoder, count, running, settings_for, sync_of, until, wait_fresh

SWAP = """
BEGIN; CREATE TABLE docs_new (LIKE docs INCLUDING ALL);
INSERT INTO docs_new SELECT id, body || ' new' FROM docs;
ALTER TABLE docs RENAME TO docs_old; ALTER TABLE docs_new RENAME TO docs; COMMIT
"""
EVENTS = {
    "swapped": SWAP,
    "rewritten": "ALTER TABLE docs ALTER body TYPE text USING body || ' new'",
    "made again": "DROP TABLE docs; CREATE TABLE docs (id bigint PRIMARY KEY, body text);"
    "INSERT INTO docs VALUES (1, 'a new')",
}


@pytest.mark.parametrize("ddl", EVENTS.values(), ids=EVENTS.keys())
def test_it_is_noticed_without_a_sweep(url: str, docs: Connection, ddl: str) -> None:
    docs.execute("INSERT INTO docs VALUES (1, 'a')")
    new = """SELECT FROM docs_embedding WHERE id = 1
              AND content_hash = substring(sha256(convert_to('a new', 'UTF8')) FROM 1 FOR 16)"""
    with running(settings_for(url, sync_of("docs"), sweep_seconds=3600.0), NullEncoder()) as worker:
        wait_fresh(worker)
        docs.execute(ddl)
        until("the new text is embedded", lambda: docs.execute(new).fetchone() is not None)


def test_it_never_fails_the_ddl_and_keeps_quiet_about_other_tables(url: str, docs: Connection) -> None:
    with running(settings_for(url, sync_of("docs")), NullEncoder()) as worker:
        wait_fresh(worker)
    with psycopg.connect(docs.info.dsn, autocommit=True) as listening:
        listening.execute("LISTEN freshvec")
        docs.execute(
            "CREATE TABLE other (id int); ALTER TABLE other ADD x int; CREATE TEMP TABLE t (a int);"
            "DROP TABLE other"
        )
        docs.execute("SELECT pg_notify('freshvec', 'end')")
        heard = [notice.payload for notice in listening.notifies(timeout=30, stop_after=1)]
    assert heard == ["end"]
    docs.execute("ALTER SCHEMA freshvec RENAME TO hidden")
    docs.execute("ALTER TABLE docs ADD x int")
    docs.execute("DROP TABLE docs")
    assert count(docs, "pg_event_trigger") == 2
