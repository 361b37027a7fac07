"""Plan, apply and remove."""

from typing import Any

import psycopg
import pytest

from freshvec.db import connect
from freshvec.records import Model
from freshvec.schema import migrations
from freshvec.schema.apply import apply, remove
from freshvec.schema.plan import plan
from tests.support import (
    MODEL,
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

NULL = Model(MODEL, 8, 256, NullEncoder.fingerprint)
CATALOGUE = """
SELECT 'class', c.oid::regclass::text, c.relacl::text FROM pg_class c
 WHERE c.relnamespace::regnamespace::text NOT LIKE 'pg\\_%'
UNION ALL SELECT 'function', oid::regprocedure::text, proacl::text FROM pg_proc
 WHERE pronamespace::regnamespace::text = 'freshvec'
UNION ALL SELECT 'trigger', tgname::text, tgenabled::text FROM pg_trigger
UNION ALL SELECT 'namespace', nspname::text, nspacl::text FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%'
UNION ALL SELECT 'constraint', conname::text, conrelid::regclass::text FROM pg_constraint WHERE conrelid <> 0
 ORDER BY 1, 2, 3
"""


def catalogue(connection: Connection) -> list[Any]:
    return connection.execute(CATALOGUE).fetchall()


def has_applied(url: str) -> bool:
    """Migrate and apply; whether there was something to do."""
    settings = settings_for(url, sync_of("docs"))
    with connect(settings.database.url, "test") as connection:
        migrations.migrate(connection)
        return apply(connection, settings.sync[0], NULL, settings.database.worker_role)[1]


def test_plan_prints_the_ddl_and_changes_nothing(url: str, docs: Connection) -> None:
    settings = settings_for(url, sync_of("docs"))
    before = catalogue(docs)
    with connect(settings.database.url, "test") as connection:
        planned = plan(connection, settings.sync[0], NULL)
    assert not planned.is_applied
    assert catalogue(docs) == before
    ddl = [*planned.lacking, *planned.access]
    text = "\n".join(ddl)
    for part in (
        '"freshvec"."queue_docs"',
        '"public"."docs_embedding"',
        "vector",
        "ENABLE ALWAYS TRIGGER",
        "%",
    ):
        assert part in text
    assert "%%" not in text
    # The printed text is what is run: a database made by hand from it is the one `apply` makes.
    assert has_applied(url)
    made = catalogue(docs)
    with connect(settings.database.url, "test") as connection:
        for statement in ddl:
            connection.execute(statement.encode())
    assert catalogue(docs) == made


def test_apply_twice_changes_nothing_and_a_lost_trigger_comes_back(url: str, docs: Connection) -> None:
    assert has_applied(url)
    made = catalogue(docs)
    assert not has_applied(url)
    docs.execute("ALTER TABLE docs DISABLE TRIGGER freshvec_docs_update")
    docs.execute("DROP TRIGGER freshvec_docs_delete ON docs")
    assert has_applied(url)
    assert catalogue(docs) == made


def test_another_text_is_walked_from_the_beginning(url: str, docs: Connection) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 20) g")
    encoder = NullEncoder()
    backfill(settings_for(url, sync_of("docs")), encoder)
    assert encoder.encoded == 20
    backfill(settings_for(url, sync_of("docs", expression="upper(body)")), encoder)
    assert encoder.encoded == 40
    encoder.fingerprint = b"another model 00"
    backfill(settings_for(url, sync_of("docs", expression="upper(body)")), encoder)
    fingerprints = docs.execute("SELECT DISTINCT fingerprint FROM docs_embedding").fetchall()
    assert fingerprints == [(encoder.fingerprint,)]
    assert count(docs, "docs_embedding") == 20


def test_remove_leaves_the_source_as_it_was(url: str, docs: Connection) -> None:
    with connect(settings_for(url).database.url, "test") as connection:
        migrations.migrate(connection)
    before = catalogue(docs)
    assert has_applied(url)
    with connect(settings_for(url).database.url, "test") as connection:
        assert remove(connection, "docs")
        assert not remove(connection, "docs")
    assert catalogue(docs) == before


def test_who_may_read_the_source_may_read_its_embeddings(url: str, docs: Connection) -> None:
    docs.execute("DROP ROLE IF EXISTS reader")
    docs.execute("CREATE ROLE reader")
    docs.execute("GRANT SELECT ON docs TO reader")
    assert has_applied(url)
    docs.execute("SET ROLE reader")
    docs.execute("SELECT * FROM docs_embedding")
    docs.execute("SELECT * FROM docs_embedded")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        docs.execute("DELETE FROM docs_embedding")
    docs.execute("RESET ROLE")
    docs.execute("DROP OWNED BY reader")
    docs.execute("DROP ROLE reader")


def test_the_worker_needs_no_right_to_write_the_source(url: str, docs: Connection) -> None:
    docs.execute("DROP ROLE IF EXISTS worker")
    docs.execute("CREATE ROLE worker LOGIN")
    docs.execute("INSERT INTO docs VALUES (1, 'one'), (2, 'two')")
    settings = settings_for(url, sync_of("docs"))
    with connect(settings.database.url, "test") as connection:
        migrations.migrate(connection)
        apply(connection, settings.sync[0], NULL, "worker")
    restricted = {"url": url.replace("postgres:@", "worker@"), "worker_role": "worker"}
    settings = settings.model_validate({**settings.model_dump(exclude={"database"}), "database": restricted})
    with running(settings, NullEncoder()) as worker:
        wait_fresh(worker)
        docs.execute("UPDATE docs SET body = 'edited' WHERE id = 1")
        docs.execute("DELETE FROM docs WHERE id = 2")
        docs.execute("TRUNCATE docs")
        docs.execute("INSERT INTO docs VALUES (3, 'three')")
        kept = "SELECT array_agg(id) FROM docs_embedding"
        until("it is fresh", lambda: docs.execute(kept).fetchone() == ([3],))
    rights = "SELECT has_table_privilege('worker', 'docs', 'INSERT, UPDATE, DELETE, TRUNCATE')"
    assert docs.execute(rights).fetchone() == (False,)
    docs.execute("DROP OWNED BY worker")
    docs.execute("DROP ROLE worker")
