"""What the maker's default privileges give others is not theirs on a target, nor on freshvec's own tables."""

from collections.abc import Iterator
from functools import partial

import pytest

from tests.support import Connection, NullEncoder, running, settings_for, sync_of, until, wait_fresh

# After each of these the target is another table.
EVENTS = (
    "DROP TABLE docs_embedding CASCADE",
    "ALTER TABLE docs ALTER id TYPE bigint",
    "ALTER TABLE docs DROP CONSTRAINT docs_pkey, ADD PRIMARY KEY (id, part)",
)


def readable_by(app: Connection, role: str) -> int | None:
    """The target, where that role may read it."""
    asked = "SELECT oid::int FROM pg_class WHERE oid = to_regclass('docs_embedding')"
    row = app.execute(f"{asked} AND has_table_privilege(%s, oid, 'SELECT')".encode(), (role,)).fetchone()
    return None if row is None else row[0]


def is_readable_otherwise(app: Connection, before: int) -> bool:
    return readable_by(app, "tenant") not in (None, before)


def given_to_others(app: Connection) -> list[str]:
    """What is not the owner's alone of the tables, views and sequences of schema freshvec."""
    asked = """SELECT c.relname::text FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS a
                WHERE c.relnamespace = 'freshvec'::regnamespace AND a.grantee <> c.relowner"""
    return [name for (name,) in app.execute(asked.encode())]


@pytest.fixture(autouse=True)
def roles(app: Connection) -> Iterator[None]:
    for role in ("tenant", "other"):
        app.execute(f"CREATE ROLE {role}".encode())
    yield
    for role in ("tenant", "other"):
        app.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


@pytest.mark.parametrize("to", ["other", "PUBLIC"])
def test_nobody_is_shown_more_for_default_privileges(either_url: str, app: Connection, to: str) -> None:
    """Neither when the target is made, nor when it is made anew or copied for another key."""
    app.execute("CREATE TABLE docs (id int PRIMARY KEY, part int DEFAULT 0 NOT NULL, body text)")
    app.execute("INSERT INTO docs SELECT g, 0, 'text ' || g FROM generate_series(1, 100) g")
    for schema in ("public", "freshvec"):
        app.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}".encode())
        for kind in ("TABLES", "SEQUENCES"):
            given = f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT, UPDATE ON {kind} TO {to}"
            app.execute(given.encode())
    app.execute("REVOKE ALL ON docs FROM other, PUBLIC; GRANT SELECT ON docs TO tenant")
    try:
        with running(settings_for(either_url, sync_of("docs"), sweep_seconds=3600), NullEncoder()) as worker:
            wait_fresh(worker)
            assert readable_by(app, "other") is None
            assert given_to_others(app) == []
            for event in EVENTS:
                before = readable_by(app, "tenant")
                assert before
                app.execute(event.encode())
                worker.sweep()
                is_another = partial(is_readable_otherwise, app, before)
                until("it is another", is_another)
                assert readable_by(app, "other") is None
                assert given_to_others(app) == []
    finally:
        for schema in ("public", "freshvec"):
            for kind in ("TABLES", "SEQUENCES"):
                taken = f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} REVOKE ALL ON {kind} FROM {to}"
                app.execute(taken.encode())
