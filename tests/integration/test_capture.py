"""What an application may do to its table, and that capture neither misses it nor gets in its way."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from freshvec.worker.worker import Worker
from tests.support import (
    Connection,
    NullEncoder,
    backfill,
    content_hash,
    count,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
)


@pytest.fixture(params=["18", "16"])
def base_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue("url" if request.param == "18" else "url16")
    return url


@pytest.fixture
def app(base_url: str) -> Iterator[Connection]:
    with psycopg.connect(base_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE docs (id int PRIMARY KEY, body text, views int DEFAULT 0)")
        connection.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 50) g")
        yield connection


@pytest.fixture
def live(base_url: str, app: Connection) -> Iterator[tuple[Worker, NullEncoder]]:
    encoder = NullEncoder()
    with running(settings_for(base_url, sync_of("docs")), encoder) as worker:
        wait_fresh(worker)
        yield worker, encoder


WRONG = """
  WITH source AS (
    SELECT id, text, substring(sha256(convert_to(text, 'UTF8')) FROM 1 FOR 16) AS hash
      FROM (SELECT id, nullif(body, '') AS text FROM docs) AS docs)
SELECT d.id, t.id FROM source d FULL JOIN docs_embedding t USING (id)
 WHERE d.id IS NULL OR (t.id IS NULL) <> (d.text IS NULL)
    OR t.content_hash IS DISTINCT FROM d.hash OR (t.embedding IS NULL) <> (d.text IS NULL)
"""


def wrong(app: Connection) -> list[Any]:
    """Rows whose embedding is not that of their text, missing ones and orphans."""
    return app.execute(WRONG).fetchall()


STATEMENTS = {
    "insert": "INSERT INTO docs VALUES (100, 'new')",
    "insert many": "INSERT INTO docs SELECT g, 'many ' || g FROM generate_series(100, 400) g",
    "update": "UPDATE docs SET body = 'changed' WHERE id = 7",
    "update all": "UPDATE docs SET body = body || '!'",
    "to null": "UPDATE docs SET body = NULL WHERE id = 3",
    "to empty": "UPDATE docs SET body = '' WHERE id = 3",
    "delete": "DELETE FROM docs WHERE id = 5",
    "delete all": "DELETE FROM docs",
    "truncate": "TRUNCATE docs",
    "truncate and refill": """BEGIN; TRUNCATE docs; INSERT INTO docs VALUES (1, 'again'), (900, 'new');
                              COMMIT""",
    "key change": "UPDATE docs SET id = id + 1000 WHERE id = 9",
    "key swap": "UPDATE docs SET id = -id",
    "delete and insert": """BEGIN; DELETE FROM docs WHERE id = 4; INSERT INTO docs VALUES (4, 'reborn');
                            COMMIT""",
    "on conflict update": """INSERT INTO docs VALUES (1, 'a'), (101, 'b')
                             ON CONFLICT (id) DO UPDATE SET body = excluded.body""",
    "on conflict nothing": "INSERT INTO docs VALUES (1, 'a'), (101, 'b') ON CONFLICT DO NOTHING",
    "merge": """MERGE INTO docs d USING (VALUES (1, 'merged'), (2, NULL), (300, 'inserted')) s (id, body)
                   ON d.id = s.id
                WHEN MATCHED AND s.body IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET body = s.body
                WHEN NOT MATCHED THEN INSERT (id, body) VALUES (s.id, s.body)""",
    "rolled back": "BEGIN; UPDATE docs SET body = 'never'; ROLLBACK",
    "savepoint": """BEGIN; UPDATE docs SET body = 'kept' WHERE id = 1; SAVEPOINT s;
                    UPDATE docs SET body = 'lost' WHERE id = 2; ROLLBACK TO s; COMMIT""",
    "replica": "SET session_replication_role = replica; UPDATE docs SET body = 'replicated' WHERE id = 1",
    "writable cte": """WITH gone AS (DELETE FROM docs WHERE id < 5 RETURNING id)
                       INSERT INTO docs SELECT id + 500, 'moved' FROM gone""",
}


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS.keys())
def test_every_kind_of_write_is_followed(
    app: Connection, live: tuple[Worker, NullEncoder], statement: str
) -> None:
    with psycopg.connect(app.info.dsn, autocommit=True) as connection:
        connection.execute(statement)
    until("every row is fresh", lambda: not wrong(app))


def test_copy_is_captured(app: Connection, live: tuple[Worker, NullEncoder]) -> None:
    with app.cursor().copy("COPY docs (id, body) FROM STDIN") as copy:
        for number in range(1000, 1500):
            copy.write_row((number, f"copied {number}"))
    until("every row is fresh", lambda: not wrong(app))


@pytest.mark.parametrize("touch", ["UPDATE docs SET views = views + 1", "UPDATE docs SET body = body"])
def test_touching_rows_without_changing_key_or_text_costs_nothing(
    app: Connection, live: tuple[Worker, NullEncoder], touch: str
) -> None:
    _, encoder = live
    app.execute("INSERT INTO docs SELECT g, 'more ' || g FROM generate_series(1000, 2949) g")
    until("every row is fresh", lambda: not wrong(app))
    query = "SELECT id, xmin::text, ctid::text FROM docs_embedding WHERE id > 0 ORDER BY id"
    versions = app.execute(query).fetchall()
    encoded = encoder.encoded
    touched = app.execute(touch).rowcount
    app.execute("INSERT INTO docs VALUES (-1, 'the last change')")
    until("the last change is fresh", lambda: not wrong(app))
    assert touched == 2000
    assert encoder.encoded == encoded + 1
    assert app.execute(query).fetchall() == versions


def test_a_role_with_rights_on_its_table_alone_can_write_and_cannot_read_the_queue(
    app: Connection, live: tuple[Worker, NullEncoder]
) -> None:
    app.execute("DROP ROLE IF EXISTS clerk")
    app.execute("CREATE ROLE clerk")
    app.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO clerk")
    app.execute("SET ROLE clerk")
    app.execute("INSERT INTO docs VALUES (500, 'by the clerk')")
    app.execute("UPDATE docs SET body = 'edited by the clerk' WHERE id = 1")
    app.execute("DELETE FROM docs WHERE id = 2")
    for secret in ("* FROM freshvec.queue_docs", "freshvec.ring('docs')", "* FROM docs_embedding"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute(f"SELECT {secret}")
    app.execute("RESET ROLE")
    until("every row is fresh", lambda: not wrong(app))
    app.execute("DROP OWNED BY clerk")
    app.execute("DROP ROLE clerk")


def test_the_trigger_cannot_be_hijacked_by_a_search_path(
    app: Connection, live: tuple[Worker, NullEncoder]
) -> None:
    app.execute("CREATE SCHEMA evil")
    app.execute("CREATE TABLE evil.stolen (what text)")
    app.execute(
        """CREATE FUNCTION evil.concat_ws(text, VARIADIC text[]) RETURNS text LANGUAGE sql
           AS $$ INSERT INTO evil.stolen VALUES (current_user); SELECT 'x' $$"""
    )
    app.execute(
        """CREATE FUNCTION evil.pg_notify(text, text) RETURNS void LANGUAGE sql
           AS $$ INSERT INTO evil.stolen VALUES ('bell') $$"""
    )
    app.execute("SET search_path = evil, public, pg_catalog")
    app.execute("UPDATE public.docs SET body = 'safe' WHERE id = 1")
    app.execute("RESET search_path")
    assert count(app, "evil.stolen") == 0
    until("every row is fresh", lambda: not wrong(app))


DAMAGES = {
    "column dropped": (
        "ALTER TABLE docs DROP COLUMN body",
        "ALTER TABLE docs ADD COLUMN body text DEFAULT 'back'",
    ),
    "schema gone": (
        "ALTER SCHEMA freshvec RENAME TO hidden",
        "ALTER SCHEMA hidden RENAME TO freshvec",
    ),
    "queue gone": (
        "ALTER TABLE freshvec.queue_docs RENAME TO away",
        "ALTER TABLE freshvec.away RENAME TO queue_docs",
    ),
    "queue refuses": (
        "ALTER TABLE freshvec.queue_docs ADD CONSTRAINT never CHECK (false) NOT VALID",
        "ALTER TABLE freshvec.queue_docs DROP CONSTRAINT never",
    ),
}


@pytest.mark.parametrize(("damage", "repair"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_failing_capture_never_fails_the_application(
    base_url: str, app: Connection, live: tuple[Worker, NullEncoder], damage: str, repair: str
) -> None:
    worker, _ = live
    warnings: list[str] = []
    app.add_notice_handler(lambda notice: warnings.append(str(notice.message_primary)))
    app.execute(damage)
    app.execute("INSERT INTO docs (id) VALUES (600)")
    app.execute("UPDATE docs SET views = 1, id = id + 10000 WHERE id = 8")
    app.execute("DELETE FROM docs WHERE id = 6")
    assert any("freshvec" in warning for warning in warnings)
    app.execute(repair)
    if "RENAME TO freshvec" in repair:
        # Nothing could be noted: verify --repair is the remedy that the warning names.
        app.execute("INSERT INTO freshvec.rescan (sync, reason) VALUES ('docs', 'test')")
        worker.sweep()
    until("everything was found again", lambda: not wrong(app))


def test_dropping_the_whole_schema_takes_the_triggers_along(app: Connection, base_url: str) -> None:
    with running(settings_for(base_url, sync_of("docs")), NullEncoder()) as worker:
        wait_fresh(worker)
    app.execute("DROP SCHEMA freshvec CASCADE")
    app.execute("UPDATE docs SET body = 'free' WHERE id = 1")
    assert count(app, "pg_trigger WHERE tgname LIKE 'freshvec%'") == 0


def test_partitions_and_children_are_followed_however_they_are_written(
    url: str, application: Connection
) -> None:
    application.execute("CREATE TABLE docs (id int PRIMARY KEY, body text) PARTITION BY RANGE (id)")
    application.execute("CREATE TABLE docs_low PARTITION OF docs FOR VALUES FROM (0) TO (100)")
    application.execute("CREATE TABLE docs_high PARTITION OF docs FOR VALUES FROM (100) TO (1000)")
    with running(settings_for(url, sync_of("docs")), NullEncoder()) as worker:
        wait_fresh(worker)
        application.execute("INSERT INTO docs VALUES (1, 'through the parent'), (150, 'too')")
        application.execute("INSERT INTO docs_low VALUES (2, 'directly')")
        application.execute("UPDATE docs SET id = 500 WHERE id = 1")
        application.execute("UPDATE docs_high SET body = 'directly' WHERE id = 150")
        until("every row is fresh", lambda: not wrong(application))


def test_json_text_and_an_expression_with_percent_and_braces(url: str, application: Connection) -> None:
    application.execute("CREATE TABLE docs (id int PRIMARY KEY, body json)")
    application.execute("""INSERT INTO docs VALUES (1, '{"a": "100%"}'), (2, '{"a": "plain"}')""")
    expression = "CASE WHEN body->>'a' LIKE '100%' THEN 'hundred {} %s' ELSE body->>'a' END"
    with running(settings_for(url, sync_of("docs", expression=expression)), NullEncoder()) as worker:
        wait_fresh(worker)
        application.execute("""UPDATE docs SET body = '{"a": "other"}' WHERE id = 2""")
        hashes = "SELECT content_hash FROM docs_embedding ORDER BY id"
        wanted = [(content_hash("hundred {} %s"),), (content_hash("other"),)]
        until("the edit is fresh", lambda: application.execute(hashes).fetchall() == wanted)


def test_rows_that_leave_the_condition_lose_their_embedding(url: str, application: Connection) -> None:
    application.execute("CREATE TABLE docs (id int PRIMARY KEY, body text, published bool)")
    application.execute("INSERT INTO docs VALUES (1, 'one', true), (2, 'two', false)")
    visible = "SELECT array_agg(id ORDER BY id) FROM docs_embedded"
    with running(settings_for(url, sync_of("docs", where="published")), NullEncoder()) as worker:
        wait_fresh(worker)
        assert application.execute(visible).fetchone() == ([1],)
        application.execute("UPDATE docs SET published = NOT published")
        until("they changed places", lambda: application.execute(visible).fetchone() == ([2],))


def test_serializable_transactions_do_not_fail_because_of_us(
    app: Connection, live: tuple[Worker, NullEncoder]
) -> None:
    with psycopg.connect(app.info.dsn) as one, psycopg.connect(app.info.dsn) as two:
        for number, connection in enumerate((one, two)):
            connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
            connection.execute("UPDATE docs SET body = 'serial' WHERE id = %s", (10 + number,))
            connection.execute("DELETE FROM docs WHERE id = %s", (20 + number,))
        one.commit()
        two.commit()
    until("every row is fresh", lambda: not wrong(app))


def test_an_open_transaction_of_the_application_holds_nobody_up(
    app: Connection, live: tuple[Worker, NullEncoder]
) -> None:
    with psycopg.connect(app.info.dsn) as slow:
        slow.execute("DELETE FROM docs WHERE id = 1")
        slow.execute("UPDATE docs SET body = 'uncommitted' WHERE id = 2")
        app.execute("UPDATE docs SET body = 'quick' WHERE id = 3")
        until("the other row is fresh", lambda: not wrong(app))
        slow.commit()
    until("the late change, of a lower transaction id, is found", lambda: not wrong(app))


def test_a_replicating_session_does_not_scan_the_queue(url: str, docs: Connection) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text' FROM generate_series(1, 1000) g")
    backfill(settings_for(url, sync_of("docs")), NullEncoder())
    docs.execute("UPDATE docs SET body = 'a thousand entries'")
    scans = "SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relname = 'queue_docs'"
    with psycopg.connect(url) as session:
        session.execute("SET LOCAL session_replication_role = replica; SET LOCAL enable_seqscan = off")
        session.execute("UPDATE docs SET body = 'replicated' WHERE id = 1")
        assert session.execute(scans).fetchone() == (0,)
    assert count(docs, "freshvec.queue_docs") == 1001
