"""Nothing of the table owner's runs with more rights than its own."""

from collections.abc import Iterator

import psycopg
import pytest

from freshvec.db import connect
from freshvec.errors import SchemaError
from freshvec.records import Model
from freshvec.schema import migrations
from freshvec.schema.apply import apply
from freshvec.schema.plan import plan
from tests.support import MODEL, Connection, NullEncoder, count, settings_for, sync_of

NULL = Model(MODEL, NullEncoder.dimension, 256, NullEncoder.fingerprint)
FUNCTION = """
CREATE OR REPLACE FUNCTION app.{name} LANGUAGE plpgsql IMMUTABLE AS
$$ BEGIN RAISE EXCEPTION 'ran as %', current_user; END $$
"""
HARMLESS = "CREATE OR REPLACE FUNCTION app.{} LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN {}; END $$"


@pytest.fixture(params=["18", "16"])
def mallory(request: pytest.FixtureRequest) -> Iterator[Connection]:
    """The owner of a table, its schema and functions; `applier` is another role, which made freshvec's."""
    url: str = request.getfixturevalue("url" if request.param == "18" else "url16")
    with psycopg.connect(url, autocommit=True) as admin, psycopg.connect(url, autocommit=True) as owner:
        for role in ("mallory", "applier"):
            admin.execute(f"CREATE ROLE {role} LOGIN")
            admin.execute(f"GRANT CREATE ON DATABASE {admin.info.dbname} TO {role}")
            admin.execute(f"GRANT CREATE ON SCHEMA public TO {role}")
        admin.execute("GRANT mallory TO applier")
        owner.execute("SET SESSION AUTHORIZATION mallory")
        owner.execute("CREATE SCHEMA app")
        owner.execute("GRANT USAGE ON SCHEMA app TO PUBLIC")
        yield owner
        for role in ("mallory", "applier"):
            admin.execute(f"DROP OWNED BY {role} CASCADE")
            admin.execute(f"DROP ROLE {role}")


def as_role(owner: Connection, role: str) -> str:
    return f"postgresql://{role}:@/{owner.info.dbname}?host={owner.info.host}"


def test_the_trigger_runs_nothing_of_the_owners(mallory: Connection) -> None:
    mallory.execute(HARMLESS.format("render(t text) RETURNS text", "t"))
    mallory.execute(HARMLESS.format("checked(t text) RETURNS boolean", "true"))
    mallory.execute("CREATE DOMAIN app.name AS text CHECK (app.checked(VALUE))")
    mallory.execute("CREATE TABLE docs (id app.name PRIMARY KEY, body app.name)")
    mallory.execute("INSERT INTO docs VALUES ('a', 'one'), ('b', 'two'), ('c', 'three')")
    settings = settings_for(as_role(mallory, "applier"), sync_of("docs", expression="app.render(body)"))
    with connect(settings.database.url, "test") as connection:
        migrations.migrate(connection)
        apply(connection, settings.sync[0], NULL)
    mallory.execute(FUNCTION.format(name="render(t text) RETURNS text"))
    for name in ("record_image_ne(a record, b record)", "count(a bigint)", "texteq(a text, b text)"):
        mallory.execute(FUNCTION.format(name=f"{name} RETURNS boolean"))
    mallory.execute("CREATE OPERATOR app.= (LEFTARG = text, RIGHTARG = text, FUNCTION = app.texteq)")
    mallory.execute("INSERT INTO docs VALUES ('d', 'four')")
    mallory.execute(FUNCTION.format(name="checked(t text) RETURNS boolean"))
    mallory.execute("SET search_path = app, pg_catalog, public")
    mallory.execute("UPDATE docs SET body = body WHERE true")
    mallory.execute("UPDATE docs AS x SET body = y.id FROM docs AS y WHERE x.ctid = y.ctid")
    mallory.execute("DELETE FROM docs")
    with connect(settings_for(as_role(mallory, "postgres")).database.url, "test") as connection:
        assert count(connection, "freshvec.queue_docs") == 1 + 4 + 4
        assert count(connection, "freshvec.rescan") == 0


@pytest.mark.parametrize("expression", ["app.render(body)", "app.render('constant') || body"])
def test_a_superuser_is_refused_a_function_of_somebody_else_and_does_not_run_it(
    mallory: Connection, expression: str
) -> None:
    mallory.execute("CREATE TABLE docs (id int PRIMARY KEY, body text)")
    mallory.execute(FUNCTION.format(name="render(t text) RETURNS text"))
    settings = settings_for(as_role(mallory, "postgres"), sync_of("docs", expression=expression))
    with (
        connect(settings.database.url, "test") as connection,
        pytest.raises(SchemaError, match=r"app\.render is mallory's"),
    ):
        plan(connection, settings.sync[0], NULL)


def test_a_superuser_is_refused_a_key_whose_type_is_somebody_elses(mallory: Connection) -> None:
    mallory.execute("CREATE TYPE app.mood AS ENUM ('good', 'bad')")
    mallory.execute("CREATE TABLE docs (id app.mood PRIMARY KEY, body text)")
    settings = settings_for(as_role(mallory, "postgres"), sync_of("docs"))
    with (
        connect(settings.database.url, "test") as connection,
        pytest.raises(SchemaError, match=r"app\.mood of its key is mallory's"),
    ):
        plan(connection, settings.sync[0], NULL)


ENDING = "$freshvec$;ALTER USER mallory SUPERUSER;SELECT $freshvec$"


@pytest.mark.parametrize(
    "ddl",
    [
        f'ALTER TABLE app.docs RENAME id TO "{ENDING}"',
        f'ALTER TABLE app.docs RENAME more TO "{ENDING}"',
        f"""CREATE COLLATION app."{ENDING}" (locale = 'C');
            ALTER TABLE app.docs ALTER id TYPE text COLLATE app."{ENDING}\"""",
    ],
    ids=["key", "watched", "collation"],
)
def test_no_name_ends_the_text_of_a_function(mallory: Connection, ddl: str) -> None:
    url = as_role(mallory, "postgres")
    mallory.execute("CREATE TABLE app.docs (id text PRIMARY KEY, body text, more text)")
    mallory.execute(ddl.encode())
    settings = settings_for(url, sync_of("app.docs", expression="to_jsonb(docs)::text"))
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {admin.info.dbname} SET check_function_bodies = off")
        with connect(settings.database.url, "test") as connection:
            migrations.migrate(connection)
            with pytest.raises(SchemaError, match=r"\$freshvec\$ in it, which ends a function's text"):
                apply(connection, settings.sync[0], NULL)
        row = admin.execute("SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'").fetchone()
        assert row == (False,)


def test_a_function_whose_text_is_cut_short_is_refused(mallory: Connection) -> None:
    url = as_role(mallory, "postgres")
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {admin.info.dbname} SET check_function_bodies = off")
    with (
        connect(settings_for(url).database.url, "test") as connection,
        pytest.raises(psycopg.errors.SyntaxError),
    ):
        connection.execute("CREATE FUNCTION public.cut() RETURNS int LANGUAGE sql AS $$SELECT ($$")


def test_a_search_path_of_the_database_reaches_no_session_of_ours(mallory: Connection) -> None:
    url = as_role(mallory, "postgres")
    mallory.execute(FUNCTION.format(name="set_config(a text, b text, c boolean) RETURNS text"))
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {admin.info.dbname} SET search_path = app, pg_catalog")
    with connect(settings_for(url).database.url, "test") as connection:
        assert connection.execute("SHOW search_path").fetchone() == ("pg_catalog, pg_temp",)


def test_a_view_that_took_the_tables_place_is_not_read(mallory: Connection) -> None:
    mallory.execute(FUNCTION.format(name="evil() RETURNS boolean"))
    mallory.execute("CREATE VIEW docs AS SELECT 1 AS id, 'x' AS body WHERE app.evil()")
    with (
        connect(settings_for(as_role(mallory, "postgres")).database.url, "test") as connection,
        pytest.raises(psycopg.Error, match="restricted"),
    ):
        connection.execute("SELECT * FROM public.docs")
