"""What the application's session is set to, and what a column's type is: no change of a text is missed, none
is invented."""

from collections.abc import Iterator

import psycopg
import pytest

from freshvec.db import connect
from freshvec.scans.verify import verify
from tests.staleness import stale
from tests.support import (
    Connection,
    NullEncoder,
    backfill,
    bound_sync,
    content_hash,
    count,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
)

REAL = {"type": "real[]"}
SETTINGS = {
    "none": "SET work_mem = '4MB'",
    "float digits": "SET extra_float_digits = 0",
    "fewest float digits": "SET extra_float_digits = -15",
    "date style": "SET datestyle = 'SQL, DMY'",
    "German dates": "SET datestyle = 'German'",
    "time zone": "SET timezone = 'Asia/Kolkata'",
    "bytea": "SET bytea_output = 'escape'",
    "interval style": "SET intervalstyle = 'iso_8601'",
    "client encoding": "SET client_encoding = 'LATIN1'",
    "search path": "SET search_path = ''",
    "own operators first": "SET search_path = traps, public, pg_catalog",
    "money": "SET lc_monetary = 'C'",
    "strings": """SET standard_conforming_strings = off; SET backslash_quote = off;
        SET escape_string_warning = off""",
    "identifiers": "SET quote_all_identifiers = on",
    "replica": "SET session_replication_role = replica",
    "local": "SET session_replication_role = local",
    "XML": "SET xmlbinary = 'hex'; SET xmloption = 'document'",
    "row security": "SET row_security = off",
    "null elements": "SET array_nulls = off; SET transform_null_equals = on",
    # To Postgres before 18 a plan that is switched off costs so much that it would compile each statement.
    "planner": """SET enable_hashjoin = off; SET enable_mergejoin = off;
        SET plan_cache_mode = force_generic_plan; SET jit = off""",
}
# Equality of everything, as a hostile or careless schema may define it.
TRAPS = """
CREATE SCHEMA traps;
CREATE FUNCTION traps.never(record, record) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN false; END';
CREATE FUNCTION traps.record_image_ne(record, record) RETURNS boolean LANGUAGE plpgsql
  AS 'BEGIN RETURN false; END';
CREATE OPERATOR traps.*<> (LEFTARG = record, RIGHTARG = record, FUNCTION = traps.never);
CREATE OPERATOR traps.<> (LEFTARG = record, RIGHTARG = record, FUNCTION = traps.never);
GRANT USAGE ON SCHEMA traps TO PUBLIC;
"""
# Type, the value before and after: each pair prints differently in our sessions, many are equal.
CHANGES = {
    "float8": ("float8", "0.3", "0.1::float8 + 0.2::float8"),
    "float4": ("float4", "1", "1.0000001"),
    "zero": ("float8", "'0'", "'-0'"),
    "timestamptz": ("timestamptz", "'2026-01-01 00:00Z'", "'2026-01-01 00:00:00.000001Z'"),
    "interval": ("interval", "'1 day'", "'24:00:00'"),
    "bytea": ("bytea", r"'\x61'", r"'\x62'"),
    "numeric": ("numeric", "1.0", "1.00"),
    "jsonb": ("jsonb", """'{"a": 1.0}'""", """'{"a": 1.00}'"""),
    "json": ("json", """'{"a": 1}'""", """'{"a":  1}'"""),
    "array": ("numeric[]", "'{1.0}'", "'{1.00}'"),
    "bounds": ("text[]", "'{a}'", "'[0:0]={a}'"),
    "composite": ("pair", "'(1.0,a)'", "'(1.00,a)'"),
    "composites": ("pair[]", """'{"(1.0,a)"}'""", """'{"(1.00,a)"}'"""),
    "enum": ("mood", "'sad'", "'glad'"),
    "domain": ("amount", "1.0", "1.00"),
    "bpchar": ("bpchar(9)", "'a'", "'b'"),
    "money": ("money", "1.5", "1.51"),
    "range": ("numrange", "'[1.0,2)'", "'[1.00,2)'"),
    "date": ("date", "'2026-01-02'", "'2026-02-01'"),
    "timetz": ("timetz", "'12:00+00'", "'12:00:00.000001+00'"),
    "bits": ("varbit", "'10'", "'100'"),
    "inet": ("inet", "'10.0.0.1/8'", "'10.0.0.1/9'"),
    "tsvector": ("tsvector", "'a:1'", "'a:2'"),
    "text": ("text", "'a'", "'a '"),
    "long text": ("text", "(SELECT string_agg(md5(g::text), '') FROM generate_series(1, 500) g)", "'short'"),
    "longer text": (
        "text",
        "(SELECT string_agg(md5(g::text), '') FROM generate_series(1, 500) g)",
        "(SELECT string_agg(md5(g::text), '') || '.' FROM generate_series(1, 500) g)",
    ),
    "emptied": ("text", "'a'", "NULL"),
}
XML = {"xml": ("xml", "'<a/>'", "'<a></a>'")}


@pytest.fixture(params=["18", "16", "15"])
def table(
    request: pytest.FixtureRequest,
) -> Iterator[tuple[str, Connection, dict[str, tuple[str, str, str]]]]:
    """URL, the application's connection, and the changes: `docs` has a column of each, and one that is not
    watched."""
    url: str = request.getfixturevalue({"18": "url", "16": "url16", "15": "url15"}[request.param])
    changes = CHANGES | (XML if request.param == "15" else {})
    with psycopg.connect(url, autocommit=True) as application:
        application.execute(TRAPS)
        application.execute("CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE DOMAIN amount AS numeric")
        application.execute("CREATE TYPE pair AS (n numeric, t text)")
        columns = ", ".join(f'"{name}" {kind}' for name, (kind, _, _) in changes.items())
        application.execute(f"CREATE TABLE docs (id int PRIMARY KEY, views int DEFAULT 0, {columns})")
        values = ", ".join(before for _, before, _ in changes.values())
        application.execute(f"INSERT INTO docs VALUES (1, 0, {values})")
        yield url, application, changes


def test_every_change_is_noticed_and_no_other(
    table: tuple[str, Connection, dict[str, tuple[str, str, str]]],
) -> None:
    """Each column there and back, in a session with each setting: one entry each; an unrelated update:
    none."""
    url, application, changes = table
    settings = settings_for(url, sync_of("docs", target=REAL, columns=list(changes)))
    backfill(settings, NullEncoder())
    wrong = [
        f"{setting}: {fault}"
        for setting in SETTINGS
        for fault in faults_under(url, application, changes, setting)
    ]
    assert not wrong, wrong


def faults_under(
    url: str, application: Connection, changes: dict[str, tuple[str, str, str]], setting: str
) -> Iterator[str]:
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(SETTINGS[setting])

        def entries(update: str) -> int:
            before = count(application, "freshvec.queue_docs")
            session.execute(f"UPDATE public.docs SET {update}".encode())
            return count(application, "freshvec.queue_docs") - before

        for name, (kind, before, after) in changes.items():
            qualified = f"public.{kind}" if kind.split("[")[0] in ("mood", "pair", "amount") else kind
            there, back = (f'"{name}" = ({value})::{qualified}' for value in (after, before))
            entries(there)
            for update in (back, there):
                if entries(update) != 1:
                    yield f"{update}: not noticed"
        for update in ("views = views + 1", "views = views", 'text = text, "long text" = "long text"'):
            if entries(update):
                yield f"{update}: queued"


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS.keys())
def test_a_worker_whose_role_has_odd_settings_renders_the_same_text(
    url: str, application: Connection, setting: str
) -> None:
    """The hash is that of the pinned rendering, whatever the database, or the role, or the application is set
    to."""
    application.execute(
        "CREATE TABLE docs (id int PRIMARY KEY, at timestamptz, n float8, i interval, b bytea)"
    )
    values = "'2026-01-02 03:04:05Z', 0.1::float8 + 0.2, '1 day 2 hours', decode('6100', 'hex')"
    (database,) = application.execute("SELECT current_database()").fetchone() or ("",)
    for part in setting.removeprefix("SET ").split("; SET "):
        name = part.split(" = ")[0]
        if name != "client_encoding":
            application.execute(f"ALTER DATABASE {database} SET {part}".encode())
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(f"INSERT INTO public.docs VALUES (1, {values})".encode())
    declared = sync_of("docs", columns=["at", "n", "i", "b"])
    settings, encoder = settings_for(url, declared), NullEncoder()
    backfill(settings, encoder)
    text = "2026-01-02 03:04:05+00\n0.30000000000000004\n1 day 02:00:00\n\\x6100"
    found = application.execute("SELECT content_hash FROM public.docs_embedding").fetchall()
    assert found == [(content_hash(text),)]
    with connect(settings.database.url, "test") as connection:
        assert verify(connection, bound_sync(connection, settings, encoder)).is_fresh


MOVES = """
MERGE INTO docs d USING (SELECT g AS id FROM generate_series(1, 99) g) s ON d.id = s.id
WHEN MATCHED AND s.id %% 3 = 0 THEN UPDATE SET id = s.id + {0}
WHEN MATCHED AND s.id %% 3 = 1 THEN UPDATE SET id = s.id + {0}, body = 'moved ' || s.id
WHEN MATCHED THEN DELETE
""".replace("%%", "%")


@pytest.mark.parametrize("version", ["18", "16"])
@pytest.mark.parametrize("by", [100, 200])
def test_a_merge_moves_rows_across_partitions(version: str, by: int, request: pytest.FixtureRequest) -> None:
    url: str = request.getfixturevalue("url" if version == "18" else "url16")
    with psycopg.connect(url, autocommit=True) as application:
        application.execute("CREATE TABLE docs (id int PRIMARY KEY, body text) PARTITION BY RANGE (id)")
        application.execute("CREATE TABLE one PARTITION OF docs FOR VALUES FROM (0) TO (100)")
        application.execute("CREATE TABLE two PARTITION OF docs FOR VALUES FROM (100) TO (200)")
        application.execute(
            "CREATE TABLE more PARTITION OF docs FOR VALUES FROM (200) TO (1000) PARTITION BY LIST (id)"
        )
        application.execute("CREATE TABLE rest PARTITION OF more DEFAULT")
        application.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 99) g")
        encoder = NullEncoder()
        with running(settings_for(url, sync_of("docs"), sweep_seconds=600), encoder) as worker:
            wait_fresh(worker)
            application.execute(MOVES.format(by))
            until("it is fresh again", lambda: not stale(application, encoder))
            application.execute(
                "MERGE INTO docs d USING (VALUES (150, 103)) s (f, t) ON d.id = s.f"
                " WHEN MATCHED THEN UPDATE SET id = 50, body = 'back'"
                " WHEN NOT MATCHED THEN INSERT VALUES (s.f, 'new')"
            )
            until("it is fresh again", lambda: not stale(application, encoder))
            assert count(application, "docs_embedding") == count(application, "docs")
