"""Row security and grants: who is shown a row is shown its embedding, in view and table alike, and nobody
else."""

from collections.abc import Iterator

import psycopg
import pytest

from freshvec.db import connect
from freshvec.errors import DatabaseError
from freshvec.records import Model
from freshvec.schema.apply import apply
from freshvec.worker.worker import Worker
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

ROLES = ("owner", "tenant", "worker", "other")
SHOWN = ("docs", "docs_embedding", "docs_embedded")


@pytest.fixture(params=["18", "16"])
def server_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue("url" if request.param == "18" else "url16")
    return url


@pytest.fixture
def app(server_url: str) -> Iterator[Connection]:
    """100 rows of `docs`, of ten tenants, and roles: a table with an owner who is no superuser."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        for role in ROLES:
            connection.execute(f"CREATE ROLE {role} LOGIN")
        connection.execute("GRANT CREATE ON SCHEMA public TO owner")
        connection.execute("SET ROLE owner")
        connection.execute("CREATE TABLE docs (id int PRIMARY KEY, tenant text, body text)")
        connection.execute(
            "INSERT INTO docs SELECT g, 't' || g % 10, 'text ' || g FROM generate_series(1, 100) g"
        )
        connection.execute(
            "CREATE POLICY by_tenant ON docs USING (tenant = current_setting('app.tenant', true))"
        )
        connection.execute("RESET ROLE")
        yield connection
        connection.execute("RESET ROLE")
        for role in ROLES:
            connection.execute(f"DROP OWNED BY {role} CASCADE")
            connection.execute(f"DROP ROLE {role}")


def shown(app: Connection, role: str = "tenant", tenant: str = "t3") -> list[int | None]:
    """How many rows a role is shown of source, target and view; None where it is denied."""
    rows: list[int | None] = []
    with psycopg.connect(app.info.dsn, user=role, autocommit=True) as session:
        session.execute("SELECT set_config('app.tenant', %s, false)", (tenant,))
        for relation in SHOWN:
            try:
                rows.append(count(session, relation))
            except psycopg.errors.InsufficientPrivilege:
                rows.append(None)
    return rows


def run_as(url: str, user: str) -> str:
    return url.replace("postgres:@", f"{user}:@")


def shows(app: Connection, wanted: list[int | None], role: str = "tenant") -> None:
    until(f"{role} is shown {wanted}", lambda: shown(app, role) == wanted)


@pytest.fixture
def live(server_url: str, app: Connection) -> Iterator[Worker]:
    """A worker that may do everything, and sweeps all the time."""
    settings = settings_for(server_url, sync_of("docs"), sweep_seconds=0.3)
    with running(settings, NullEncoder()) as worker:
        wait_fresh(worker)
        yield worker


def test_a_tenant_is_shown_the_embeddings_of_its_own_rows_alone(server_url: str, app: Connection) -> None:
    app.execute("ALTER TABLE docs ENABLE ROW LEVEL SECURITY")
    app.execute("GRANT SELECT ON docs TO tenant")
    backfill(settings_for(server_url, sync_of("docs")), NullEncoder())
    assert count(app, "docs_embedding") == 100
    assert shown(app) == [10, 10, 10]
    with psycopg.connect(run_as(server_url, "tenant")) as session:
        session.execute("SET app.tenant = 't3'")
        for relation in SHOWN:
            (of_others,) = session.execute(
                f"SELECT count(*) FROM {relation} WHERE id % 10 <> 3"
            ).fetchone() or (None,)
            assert of_others == 0
        session.execute("SET app.tenant = 'nobody'")
        assert [count(session, relation) for relation in SHOWN] == [0, 0, 0]


def test_readers_are_shown_theirs_where_functions_are_nobodys_by_default(
    server_url: str, app: Connection
) -> None:
    app.execute("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
    app.execute("ALTER TABLE docs ENABLE ROW LEVEL SECURITY; GRANT SELECT ON docs TO tenant")
    with running(settings_for(server_url, sync_of("docs")), NullEncoder()) as worker:
        wait_fresh(worker)
        shows(app, [10, 10, 10])
        app.execute("GRANT USAGE ON SCHEMA freshvec TO tenant; SET ROLE tenant")
        app.execute("SELECT freshvec.is_fresh('docs')")
        app.execute("RESET ROLE")


def test_row_security_that_is_switched_on_and_off_later_is_followed(app: Connection, live: Worker) -> None:
    app.execute("GRANT SELECT ON docs TO tenant")
    shows(app, [100, 100, 100])
    app.execute("ALTER TABLE docs ENABLE ROW LEVEL SECURITY")
    shows(app, [10, 10, 10])
    app.execute("ALTER TABLE docs DISABLE ROW LEVEL SECURITY")
    shows(app, [100, 100, 100])
    app.execute("ALTER TABLE docs ENABLE ROW LEVEL SECURITY")
    shows(app, [10, 10, 10])


def test_grants_and_revokes_are_followed(app: Connection, live: Worker) -> None:
    assert shown(app) == [None, None, None]
    app.execute("GRANT SELECT (id, body) ON docs TO tenant")
    app.execute("GRANT SELECT ON docs TO other")
    shows(app, [100, 100, 100], "other")
    assert shown(app)[1:] == [None, None]  # a right to some columns gives nothing
    app.execute("REVOKE SELECT ON docs FROM other")
    shows(app, [None, None, None], "other")
    app.execute("GRANT SELECT ON docs TO PUBLIC")
    shows(app, [100, 100, 100])
    app.execute("REVOKE SELECT ON docs FROM PUBLIC")
    shows(app, [None, None, None], "other")
    shows(app, [100, None, None])  # what the application gave of its table stays
    app.execute("GRANT SELECT ON docs TO tenant WITH GRANT OPTION")
    shows(app, [100, 100, 100])
    with psycopg.connect(app.info.dsn, user="tenant", autocommit=True) as session:
        session.execute("GRANT SELECT ON docs TO other")
    shows(app, [100, 100, 100], "other")


def test_a_role_that_is_gone_or_renamed_keeps_nothing_from_being_followed(
    app: Connection, live: Worker
) -> None:
    app.execute("CREATE ROLE passing")
    app.execute("GRANT SELECT ON docs TO passing")
    granted = "SELECT granted FROM freshvec.sync"
    until("it is granted", lambda: "passing" in app.execute(granted).fetchall()[0][0])
    app.execute("DROP OWNED BY passing")
    app.execute("DROP ROLE passing")
    app.execute("GRANT SELECT ON docs TO tenant")
    shows(app, [100, 100, 100])
    assert app.execute("SELECT last_error FROM freshvec.status").fetchone() == (None,)


def test_the_owner_of_the_table_is_shown_what_another_role_applied(app: Connection, live: Worker) -> None:
    shows(app, [100, 100, 100], "owner")
    app.execute("GRANT CREATE ON SCHEMA public TO other")
    app.execute("ALTER TABLE docs OWNER TO other")
    shows(app, [100, 100, 100], "other")
    shows(app, [None, None, None], "owner")


def test_a_revoke_that_the_worker_may_not_follow_is_followed_by_apply(
    server_url: str, app: Connection
) -> None:
    """Notes of what was granted outlive a worker that has no right to take it away."""
    app.execute("GRANT SELECT ON docs TO tenant")
    full = settings_for(server_url, sync_of("docs"))
    model = Model(MODEL, 8, 256, NullEncoder.fingerprint)
    backfill(full, NullEncoder())
    with connect(full.database.url, "test") as connection:
        apply(connection, full.sync[0], model, "worker")
    database = {"url": run_as(server_url, "worker"), "worker_role": "worker"}
    limited = full.model_validate({**full.model_dump(), "database": database})
    app.execute("REVOKE SELECT ON docs FROM tenant")
    with running(limited, NullEncoder()) as worker:
        wait_fresh(worker)
        said = "SELECT coalesce(last_error, '') FROM freshvec.status"
        until("it is said", lambda: "may not" in (app.execute(said).fetchone() or ("",))[0])
    assert shown(app) == [None, 100, None]
    with connect(full.database.url, "test") as connection:
        apply(connection, full.sync[0], model, "worker")
    assert shown(app) == [None, None, None]


POLICY_APPLIES = {
    "a forced owner": (
        "ALTER TABLE docs ENABLE ROW LEVEL SECURITY; ALTER TABLE docs FORCE ROW LEVEL SECURITY",
        "owner",
    ),
    "a role with grants": ("ALTER TABLE docs ENABLE ROW LEVEL SECURITY", "worker"),
}


@pytest.mark.parametrize(("switch", "role"), POLICY_APPLIES.values(), ids=POLICY_APPLIES.keys())
def test_a_worker_that_policies_apply_to_says_bypassrls_and_deletes_nothing(
    server_url: str, app: Connection, switch: str, role: str
) -> None:
    app.execute("CREATE SCHEMA freshvec AUTHORIZATION owner")
    app.execute("GRANT owner TO worker")
    app.execute(f"GRANT CREATE ON DATABASE {app.info.dbname} TO owner")
    settings = settings_for(run_as(server_url, role), sync_of("docs"), sweep_seconds=0.3)
    backfill(settings_for(run_as(server_url, "owner"), sync_of("docs")), NullEncoder())
    app.execute("REVOKE owner FROM worker")
    app.execute("GRANT ALL ON docs, docs_embedding, docs_embedded TO worker")
    app.execute("GRANT ALL ON SCHEMA freshvec TO worker")
    app.execute("GRANT ALL ON ALL TABLES IN SCHEMA freshvec TO worker")
    app.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA freshvec TO worker")
    app.execute("GRANT ALL ON ALL FUNCTIONS IN SCHEMA freshvec TO worker")
    app.execute(switch)
    trouble = "SELECT coalesce(last_error, '') FROM freshvec.status"
    with pytest.raises(DatabaseError, match="ALTER ROLE … BYPASSRLS"):
        backfill(settings, NullEncoder())
    with running(settings, NullEncoder()):
        until("it is said", lambda: "BYPASSRLS" in (app.execute(trouble).fetchone() or ("",))[0])
        app.execute("UPDATE docs SET body = 'edited' WHERE id = 1")
        app.execute("DELETE FROM docs WHERE id = 2")
    assert count(app, "docs_embedding") == 100
    app.execute(f"ALTER ROLE {role} BYPASSRLS")
    with running(settings, NullEncoder()) as worker:
        wait_fresh(worker)
    assert count(app, "docs_embedding") == 99
    assert count(app, "docs") == 99


def test_row_security_that_begins_to_apply_to_a_running_worker_deletes_nothing(
    server_url: str, app: Connection
) -> None:
    app.execute(f"GRANT CREATE ON DATABASE {app.info.dbname} TO owner")
    settings = settings_for(run_as(server_url, "owner"), sync_of("docs"), sweep_seconds=0.3)
    trouble = "SELECT coalesce(last_error, '') FROM freshvec.status"
    with running(settings, NullEncoder()) as worker:
        wait_fresh(worker)
        app.execute("ALTER TABLE docs ENABLE ROW LEVEL SECURITY; ALTER TABLE docs FORCE ROW LEVEL SECURITY")
        app.execute("UPDATE docs SET body = body || '!' WHERE id > 50")
        app.execute("INSERT INTO freshvec.rescan (sync, reason) VALUES ('docs', 'test')")
        until("it is said", lambda: "BYPASSRLS" in (app.execute(trouble).fetchone() or ("",))[0])
        assert count(app, "docs_embedding") == 100
        app.execute("ALTER ROLE owner BYPASSRLS")
        until("it goes on", lambda: app.execute(trouble).fetchone() == ("",))
        until("nothing waits", lambda: count(app, "freshvec.queue_docs") == 0)
    assert count(app, "docs_embedding") == 100


def test_a_search_through_the_view_uses_the_vector_index(server_url: str, app: Connection) -> None:
    app.execute("INSERT INTO docs SELECT g, 't', 'text ' || g FROM generate_series(101, 3000) g")
    app.execute("GRANT SELECT ON docs TO tenant")
    backfill(settings_for(server_url, sync_of("docs")), NullEncoder())
    app.execute("CREATE INDEX nearest ON docs_embedding USING hnsw (embedding vector_cosine_ops)")
    app.execute("ANALYZE")
    with psycopg.connect(run_as(server_url, "tenant"), autocommit=True) as session:
        plan = session.execute(
            "EXPLAIN SELECT id FROM docs_embedded ORDER BY embedding <=> %s::vector LIMIT 5",
            (str([1.0] * 8),),
        ).fetchall()
    assert any("nearest" in line for (line,) in plan), plan
