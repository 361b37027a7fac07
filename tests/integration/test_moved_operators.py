"""What compares keys may be moved by its owner, from an extension's schema to another: no statement of the
application's fails, and what cannot be noted is walked."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from freshvec.config import Settings
from freshvec.errors import SchemaError
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
)

# A type with operators of its own, as an extension brings them.
OWN_TYPE = """CREATE SCHEMA app;
CREATE TYPE app.code AS (part text);
{functions};
CREATE OPERATOR app.< (LEFTARG = app.code, RIGHTARG = app.code, FUNCTION = app.lt);
CREATE OPERATOR app.<= (LEFTARG = app.code, RIGHTARG = app.code, FUNCTION = app.le);
CREATE OPERATOR app.= (LEFTARG = app.code, RIGHTARG = app.code, FUNCTION = app.eq,
                       COMMUTATOR = OPERATOR(app.=), RESTRICT = eqsel, JOIN = eqjoinsel, MERGES);
CREATE OPERATOR app.>= (LEFTARG = app.code, RIGHTARG = app.code, FUNCTION = app.ge);
CREATE OPERATOR app.> (LEFTARG = app.code, RIGHTARG = app.code, FUNCTION = app.gt);
CREATE OPERATOR CLASS app.code_ops DEFAULT FOR TYPE app.code USING btree AS
  OPERATOR 1 app.<, OPERATOR 2 app.<=, OPERATOR 3 app.=, OPERATOR 4 app.>=, OPERATOR 5 app.>,
  FUNCTION 1 app.cmp(app.code, app.code)""".format(
    functions=";".join(
        f"CREATE FUNCTION app.{name}(app.code, app.code) RETURNS {kind} LANGUAGE plpgsql IMMUTABLE"
        f" AS $$ BEGIN RETURN bttextcmp($1.part, $2.part) {test}; END $$"
        for name, kind, test in (
            ("lt", "boolean", "< 0"),
            ("le", "boolean", "<= 0"),
            ("eq", "boolean", "= 0"),
            ("ge", "boolean", ">= 0"),
            ("gt", "boolean", "> 0"),
            ("cmp", "int", ""),
        )
    )
)
# Its equality made so that Postgres can join no rows by it.
UNJOINABLE = {
    "not said": OWN_TYPE.replace(", MERGES", ""),
    "a function in SQL": OWN_TYPE.replace(
        "CREATE OPERATOR app.<",
        "CREATE OR REPLACE FUNCTION app.eq(app.code, app.code) RETURNS boolean LANGUAGE sql IMMUTABLE"
        " AS 'SELECT $1.part = $2.part'; CREATE OPERATOR app.<",
        1,
    ),
    "nothing to hash by": OWN_TYPE.replace("MERGES", "HASHES"),
}
HASHED = f"""{OWN_TYPE.replace("MERGES", "MERGES, HASHES")};
CREATE FUNCTION app.hash(app.code) RETURNS int LANGUAGE plpgsql IMMUTABLE
  AS $$ BEGIN RETURN hashtext($1.part); END $$;
CREATE OPERATOR CLASS app.code_hash DEFAULT FOR TYPE app.code USING hash AS
  OPERATOR 1 app.=, FUNCTION 1 app.hash(app.code)"""
CITEXT = "CREATE SCHEMA app; CREATE EXTENSION citext SCHEMA app"
# What a key's type needs, the type, a key, and what moves its operators.
MOVES = {
    "18 renamed schema": (OWN_TYPE, "app.code", "(a)", "ALTER SCHEMA app RENAME TO moved"),
    "18 moved operator": (
        OWN_TYPE,
        "app.code",
        "(a)",
        "CREATE SCHEMA moved; ALTER OPERATOR app.= (app.code, app.code) SET SCHEMA moved",
    ),
    "15 renamed schema": (CITEXT, "app.citext", "a", "ALTER SCHEMA app RENAME TO moved"),
    "15 moved extension": (
        CITEXT,
        "app.citext",
        "a",
        "CREATE SCHEMA moved; ALTER EXTENSION citext SET SCHEMA moved",
    ),
}
TABLES = {
    "ordinary": "CREATE TABLE public.docs (id {type} PRIMARY KEY, body text)",
    "partitioned": """CREATE TABLE public.docs (id {type} PRIMARY KEY, body text) PARTITION BY RANGE (id);
        CREATE TABLE public.docs_all PARTITION OF public.docs DEFAULT""",
    "replica": "CREATE TABLE public.docs (id {type} PRIMARY KEY, body text)",
}
Moved = tuple[Settings, Connection, str]


@pytest.fixture(params=[(table, move) for table in TABLES for move in MOVES], ids=" ".join)
def moved(request: pytest.FixtureRequest) -> Iterator[Moved]:
    """A row whose key has such operators, filled and noted once by this session; and what moves them."""
    table, move = request.param
    preparation, kind, key, moving = MOVES[move]
    url: str = request.getfixturevalue("url15" if move.startswith("15") else "url")
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(preparation.encode())
        session.execute(TABLES[table].format(type=kind).encode())
        session.execute("INSERT INTO docs VALUES (%s, 'a')", (key,))
        settings = settings_for(url, sync_of("docs", target={"type": "real[]"}))
        backfill(settings, NullEncoder())
        if table == "replica":
            session.execute("SET session_replication_role = replica")
        write(session)
        assert count(session, "freshvec.queue_docs") > 0
        yield settings, session, moving


def write(session: Connection) -> None:
    """Statements of each kind, in a transaction; the row has body 'x' at the end."""
    with session.transaction():
        session.execute("UPDATE docs SET body = 'w'")
        session.execute("WITH gone AS (DELETE FROM docs RETURNING id) SELECT id INTO TEMP was FROM gone")
        session.execute("INSERT INTO docs SELECT id, 'x' FROM was")
        session.execute("DROP TABLE was")


def test_no_statement_fails_and_a_walk_is_asked_for(moved: Moved) -> None:
    _, session, moving = moved
    with psycopg.connect(session.info.dsn, autocommit=True) as other:
        other.execute(moving.encode())
        write(session)
        write(other)
    assert count(session, "freshvec.rescan WHERE reason = 'the table has changed'") == 1


REVOKED = {
    "18": "REVOKE EXECUTE ON FUNCTION app.eq FROM {role}, PUBLIC",
    "15": "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA app FROM {role}, PUBLIC",
}


@pytest.mark.parametrize(
    "moved",
    [(table, move) for table in TABLES for move in ("18 renamed schema", "15 renamed schema")],
    indirect=True,
    ids=" ".join,
)
def test_what_compares_keys_and_may_not_be_run_any_more(moved: Moved) -> None:
    """Neither in a session that has noted changes before, nor in a new one."""
    _, session, _ = moved
    with applied_by_another(session) as role:
        write(session)
        assert count(session, "freshvec.rescan") == 0
        version = "15" if session.info.server_version < 160000 else "18"
        with psycopg.connect(session.info.dsn, autocommit=True) as other:
            other.execute(REVOKED[version].format(role=role).encode())
            write(session)
            write(other)
            assert count(other, "freshvec.rescan WHERE reason = 'the table has changed'") == 1


def test_an_old_snapshot_fails_no_statement(moved: Moved) -> None:
    _, session, moving = moved
    with session.transaction():
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        session.execute("SELECT 1")
        with psycopg.connect(session.info.dsn, autocommit=True) as other:
            other.execute(moving.encode())
        write(session)
    assert count(session, "freshvec.rescan WHERE reason = 'the table has changed'") == 1


def test_a_running_worker_follows_it(moved: Moved) -> None:
    settings, session, moving = moved
    with running(settings, NullEncoder()):
        session.execute(moving.encode())
        write(session)
        session.execute("UPDATE docs SET body = 'after'")

        def is_fresh() -> bool:
            try:
                rows = session.execute(
                    "SELECT FROM docs_embedding AS t WHERE content_hash = %s", (content_hash("after"),)
                )
                return len(rows.fetchall()) == 1
            except psycopg.Error:
                return False

        until("the last text is embedded", is_fresh)
        assert count(session, "docs_embedded") == 1


@pytest.mark.parametrize("table", ["ordinary", "partitioned"])
@pytest.mark.parametrize("is_now", [True, False])
def test_what_keys_are_hashed_by_is_dropped(
    url: str, application: Connection, table: str, is_now: bool
) -> None:
    application.execute(HASHED.encode())
    application.execute(TABLES[table].format(type="app.code").encode())
    application.execute("INSERT INTO docs VALUES ('(a)', 'a')")
    backfill(settings_for(url, sync_of("docs")), NullEncoder())
    write(application)
    assert count(application, "freshvec.queue_docs") > 0
    with application.transaction():
        if not is_now:
            application.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        with psycopg.connect(url, autocommit=True) as other:
            other.execute("DROP OPERATOR FAMILY app.code_hash USING hash")
            if is_now:
                write(other)
        write(application)
    assert count(application, "freshvec.rescan WHERE reason = 'the table has changed'") == 1


@contextmanager
def applied_by_another(session: Connection) -> Iterator[str]:
    """The sync is that of a role of its own, which may use what keys are compared by."""
    row = session.execute("SELECT current_database() || '_applier'").fetchone()
    assert row
    role = row[0]
    session.execute(f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA freshvec, app TO {role}".encode())
    try:
        for kind in ("capture", "capture_row", "was_intact", "is_intact"):
            session.execute(f"ALTER FUNCTION freshvec.{kind}_docs OWNER TO {role}".encode())
        session.execute(f"ALTER TABLE freshvec.queue_docs OWNER TO {role}".encode())
        session.execute(f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA freshvec TO {role}".encode())
        yield role
    finally:
        session.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}".encode())


@pytest.mark.parametrize("moved", [("ordinary", "18 renamed schema")], indirect=True, ids=["18"])
def test_a_schema_that_who_applied_may_use_no_more(moved: Moved) -> None:
    _, session, _ = moved
    with applied_by_another(session) as role:
        write(session)
        assert count(session, "freshvec.rescan") == 0
        session.execute(f"REVOKE USAGE ON SCHEMA app FROM {role}".encode())
        write(session)
        assert count(session, "freshvec.rescan WHERE reason = 'the table has changed'") == 1


@pytest.mark.parametrize("made", UNJOINABLE.values(), ids=UNJOINABLE.keys())
def test_a_key_whose_rows_cannot_be_joined_is_refused(url: str, application: Connection, made: str) -> None:
    """With triggers on it, each UPDATE of the application's would fail."""
    application.execute(made.encode())
    application.execute("CREATE TABLE docs (id app.code PRIMARY KEY, body text)")
    with pytest.raises(SchemaError, match=r"compared by app\.=.*neither merge nor hash"):
        backfill(settings_for(url, sync_of("docs")), NullEncoder())
    application.execute("INSERT INTO docs VALUES ('(a)', 'a'); UPDATE docs SET body = 'b'")
