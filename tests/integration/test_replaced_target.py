"""The owner of the target's schema may drop what lies there, and put something of their own in its place:
nothing of it runs with more rights than its caller's."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import psycopg
import pytest

from freshvec.config import Settings
from freshvec.db import connect
from freshvec.errors import FreshvecError, SchemaError
from freshvec.health import status
from freshvec.records import Fate, Key, Model, Outcome
from freshvec.scans.backfill import Backfill
from freshvec.scans.faults import faults
from freshvec.scans.orphans import OrphanScan
from freshvec.scans.vectors import VectorSample
from freshvec.scans.verify import verify
from freshvec.schema import migrations
from freshvec.schema.apply import apply
from freshvec.schema.plan import plan
from freshvec.source.bound import BoundSync
from freshvec.source.rows import RowReader
from freshvec.target import layout, recall
from freshvec.target.search import search
from tests.support import (
    MODEL,
    Connection,
    NullEncoder,
    count,
    exists,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
)

NULL = Model(MODEL, NullEncoder.dimension, 256, NullEncoder.fingerprint)
ROLES = ("mallory", "applier", "served")
LAYOUTS: dict[str, dict[str, Any]] = {
    "target": {},
    "column": {"target": {"column": "embedding"}},
    "passages": {"chunk": {"tokens": 60, "overlap": 10}},
}
# Whoever runs something of mallory's is noted, in a table of hers that everybody may write.
EVIL = """
CREATE TABLE app.ran (who text);
GRANT INSERT ON app.ran TO PUBLIC;
CREATE FUNCTION app.note() RETURNS void LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO app.ran VALUES (current_user); END $$;
CREATE FUNCTION app.evil() RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS
  $$ BEGIN PERFORM app.note(); RETURN 1; END $$;
CREATE FUNCTION app.evil_trigger() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO app.ran VALUES (current_user); RETURN coalesce(NEW, OLD); END $$;
GRANT USAGE ON SCHEMA app TO PUBLIC
"""
# What mallory puts there.
VIEW = """DROP TABLE app.docs_embedding CASCADE;
CREATE VIEW app.docs_embedding AS SELECT id, NULL::vector(8) AS embedding, NULL::bytea AS content_hash,
  NULL::bytea AS fingerprint, app.evil() AS fence, NULL::text AS encode_error, now() AS embedded_at
  FROM app.docs; GRANT ALL ON app.docs_embedding TO PUBLIC"""
TABLE = """CREATE TABLE app.mine (LIKE app.docs_embedding INCLUDING ALL);
DROP TABLE app.docs_embedding CASCADE; ALTER TABLE app.mine RENAME TO docs_embedding;
GRANT ALL ON app.docs_embedding TO PUBLIC; """
TRIGGER = """CREATE TRIGGER evil BEFORE INSERT OR UPDATE OR DELETE ON app.docs_embedding
FOR EACH ROW EXECUTE FUNCTION app.evil_trigger()"""
ROW = "INSERT INTO app.docs_embedding (id, fingerprint, fence) VALUES (1, '', 1)"
REPLACED = {
    "view": VIEW,
    "trigger": TABLE + TRIGGER,
    "trigger of each session": f"{TABLE}{TRIGGER};ALTER TABLE app.docs_embedding ENABLE ALWAYS TRIGGER evil",
    "default": f"{TABLE}ALTER TABLE app.docs_embedding ADD more bigint DEFAULT app.evil()",
    "rule": f"""{TABLE}CREATE RULE evil AS ON DELETE TO app.docs_embedding DO ALSO SELECT app.evil()""",
    "generated": f"""{TABLE}ALTER TABLE app.docs_embedding
        ADD more bigint GENERATED ALWAYS AS (app.evil() + length(encode_error)) STORED""",
    "index": f"{TABLE}CREATE INDEX ON app.docs_embedding ((app.evil() + fence))",
    "check": f"{TABLE}ALTER TABLE app.docs_embedding ADD CHECK (app.evil() + fence > 0)",
    "partitions": """DROP TABLE app.docs_embedding CASCADE;
        CREATE TABLE app.docs_embedding (id int, embedding vector(8), content_hash bytea, fingerprint bytea,
          fence bigint, encode_error text, embedded_at timestamptz DEFAULT now(), PRIMARY KEY (id))
          PARTITION BY RANGE (id);
        CREATE TABLE app.part PARTITION OF app.docs_embedding DEFAULT;
        GRANT ALL ON app.docs_embedding TO PUBLIC; """
    + TRIGGER,
}

# A cast of hers, which a comparison with a value of the column's own type would run.
CAST = """DROP TABLE app.docs_embedding CASCADE;
CREATE TYPE app.r AS RANGE (subtype = int4);
CREATE FUNCTION app.b(app.r) RETURNS bytea LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO app.ran VALUES (current_user); RETURN ''; END $$;
CREATE FUNCTION app.n(app.r) RETURNS bigint LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO app.ran VALUES (current_user); RETURN 1; END $$;
CREATE CAST (app.r AS bytea) WITH FUNCTION app.b (app.r) AS IMPLICIT;
CREATE CAST (app.r AS bigint) WITH FUNCTION app.n (app.r) AS IMPLICIT;
CREATE TABLE app.docs_embedding (id int PRIMARY KEY, embedding vector(8), content_hash app.r,
  fingerprint app.r, fence bigint, encode_error text, embedded_at timestamptz);
INSERT INTO app.docs_embedding (id, embedding, content_hash, fingerprint, fence)
  SELECT id, '[1,1,1,1,1,1,1,1]', '[1,2)', '[1,2)', 1 FROM app.docs;
GRANT ALL ON app.docs_embedding TO PUBLIC"""


@pytest.fixture
def mallory(either_url: str) -> Iterator[Connection]:
    """The owner of `app.docs` and of its schema. `applier` makes freshvec's objects, and `served` is the
    worker's role."""
    with (
        psycopg.connect(either_url, autocommit=True) as admin,
        psycopg.connect(either_url, autocommit=True) as owner,
    ):
        for role in ROLES:
            admin.execute(f"CREATE ROLE {role} LOGIN")
            admin.execute(f"GRANT CREATE ON DATABASE {admin.info.dbname} TO {role}")
        admin.execute("GRANT mallory TO applier")
        owner.execute("SET SESSION AUTHORIZATION mallory")
        owner.execute("CREATE SCHEMA app")
        owner.execute(EVIL)
        owner.execute("CREATE TABLE app.docs (id int PRIMARY KEY, body text)")
        owner.execute("INSERT INTO app.docs SELECT g, 'text ' || g FROM generate_series(1, 20) g")
        yield owner
        for role in reversed(ROLES):
            admin.execute(f"DROP OWNED BY {role} CASCADE")
            admin.execute(f"DROP ROLE {role}")


def settings_of(owner: Connection, role: str, layout_of: str = "target") -> Settings:
    url = f"postgresql://{role}:@/{owner.info.dbname}?host={owner.info.host}"
    settings = settings_for(url, sync_of("app.docs", **LAYOUTS[layout_of]), sweep_seconds=3600.0)
    database = {**settings.database.model_dump(), "worker_role": "served"}
    return Settings.model_validate({**settings.model_dump(exclude={"database"}), "database": database})


def applied(owner: Connection, role: str, layout_of: str = "target") -> BoundSync:
    settings = settings_of(owner, role, layout_of)
    with connect(settings.database.url, "test") as connection:
        migrations.migrate(connection)
        bound, _ = apply(connection, settings.sync[0], NULL, "served")
        connection.execute("GRANT USAGE ON SCHEMA freshvec TO mallory")
    return bound


KEYS: list[Key] = [("1",), ("2",)]
QUERY = np.ones(8, np.float32)
READING: dict[str, Callable[[Connection, BoundSync], object]] = {
    "rows": lambda connection, bound: RowReader(connection, bound).read(KEYS),
    "page": lambda connection, bound: Backfill(connection, bound).read_page(10),
    "faults": lambda connection, bound: faults(connection, bound, KEYS),
    "orphans": lambda connection, bound: OrphanScan(connection, bound).queue(10),
    "verify": verify,
    "sample": lambda connection, bound: VectorSample(connection, bound, 10),
    "search": lambda connection, bound: search(connection, bound, QUERY, 10, 40),
    "recall": lambda connection, bound: recall.lists(connection, bound, [QUERY], 10),
    "apply": lambda connection, bound: apply(connection, bound.sync, NULL, "served"),
}


@pytest.mark.parametrize("role", ["applier", "postgres"])
def test_who_asks_for_freshness_runs_it_themselves(mallory: Connection, role: str) -> None:
    applied(mallory, role)
    mallory.execute(VIEW)
    mallory.execute("SELECT freshvec.is_fresh('docs', '1'), freshvec.is_fresh('docs')")
    assert {who for (who,) in mallory.execute("SELECT who FROM app.ran")} == {"mallory"}


@pytest.mark.parametrize("what", REPLACED)
@pytest.mark.parametrize("role", ["applier", "postgres", "served"])
def test_the_worker_does_not_write_to_what_took_its_place(mallory: Connection, what: str, role: str) -> None:
    """As it is when a transaction writes, and when a worker begins."""
    bound = applied(mallory, "postgres" if role == "postgres" else "applier")
    with connect(settings_of(mallory, role).database.url, "test") as connection:
        writer = layout.writer(connection, bound)
        mallory.execute(f"BEGIN; {REPLACED[what]}; COMMIT".encode())
        mallory.execute("TRUNCATE app.ran")
        for fate in (Fate.STORE, Fate.TOUCH, Fate.CLEAR, Fate.REMOVE):
            outcome = Outcome(("1",), 10**6, fate, None, b"0" * 16, error="a text that cannot be read")
            with pytest.raises(SchemaError, match="use the target of sync 'docs'"), connection.transaction():
                writer.write([outcome])
        with pytest.raises(SchemaError, match="use the target of sync 'docs'"):
            plan(connection, settings_of(mallory, role).sync[0], NULL)
    assert count(mallory, "app.ran") == 0


@pytest.mark.parametrize("role", ["applier", "postgres", "served"])
def test_failures_are_read_from_no_view_that_took_its_place(mallory: Connection, role: str) -> None:
    applied(mallory, "postgres" if role == "postgres" else "applier")
    with connect(settings_of(mallory, role).database.url, "test") as connection:
        connection.execute("UPDATE freshvec.sync SET rows_failed = 1")
        connection.execute(
            """INSERT INTO app.docs_embedding (id, fingerprint, fence, encode_error)
               VALUES (1, '', 1, 'too odd')"""
        )
        assert status.failures(connection) == {"docs": [{"key": {"id": 1}, "error": "too odd"}]}
        view = VIEW.replace("NULL::text AS encode_error", "'odd'::text AS encode_error")
        mallory.execute(f"BEGIN; {view}; COMMIT".encode())
        status.read(connection)  # which lets the session read views
        assert status.failures(connection) == {}
    assert count(mallory, "app.ran") == 0


@pytest.mark.parametrize("what", READING)
@pytest.mark.parametrize("role", ["applier", "postgres", "served"])
def test_whoever_reads_what_took_its_place_evaluates_none_of_its_rows(
    mallory: Connection, role: str, what: str
) -> None:
    bound = applied(mallory, "postgres" if role == "postgres" else "applier")
    with connect(settings_of(mallory, role).database.url, "test") as connection:
        mallory.execute(f"BEGIN; {CAST}; COMMIT".encode())
        with suppress(FreshvecError, psycopg.Error):
            READING[what](connection, bound)
        assert count(mallory, "app.ran") == 0


@pytest.mark.parametrize("layout_of", LAYOUTS)
def test_a_worker_that_runs_meanwhile_ceases_and_goes_on_once_it_is_gone(
    mallory: Connection, layout_of: str
) -> None:
    applied(mallory, "applier", layout_of)
    mallory.execute("GRANT UPDATE ON app.docs TO served")
    with running(settings_of(mallory, "applier", layout_of), NullEncoder()) as worker:
        wait_fresh(worker)
        mallory.execute(f"BEGIN; {TABLE}{TRIGGER}; COMMIT".encode())
        mallory.execute("UPDATE app.docs SET body = 'edited' WHERE id = 1")
        until("it says so", lambda: "mallory's" in str(worker.keepers[0].last_error))
        assert count(mallory, "app.ran") == 0
        mallory.execute("DROP TABLE app.docs_embedding")
        worker.sweep()
        until("it is made anew", lambda: exists(mallory, "app.docs_embedding"))
        wait_fresh(worker)
    assert count(mallory, "app.ran") == 0


def test_passages_changed_by_hand_write_to_no_target_of_somebody_elses(mallory: Connection) -> None:
    applied(mallory, "applier", "passages")
    url = settings_of(mallory, "applier", "passages").database.url.get_secret_value()
    with psycopg.connect(url, autocommit=True) as by_hand:
        by_hand.execute("ALTER TABLE app.docs_chunk DROP CONSTRAINT docs_chunk_id_fkey")
        by_hand.execute("GRANT ALL ON app.docs_chunk TO mallory")
        mallory.execute(f"BEGIN; {TABLE}{TRIGGER}; {ROW}; TRUNCATE app.ran; COMMIT".encode())
        mallory.execute("INSERT INTO app.docs_chunk VALUES (1, 1, 0, 1, '', '[1,1,1,1,1,1,1,1]')")
        mallory.execute("TRUNCATE app.docs_chunk")
        assert count(by_hand, "freshvec.rescan") > 0
    assert count(mallory, "app.ran") == 0


def test_a_target_that_was_handed_over_runs_nothing_of_its_new_owners(mallory: Connection) -> None:
    """Whoever hands the queue over as well says that they trust them."""
    applied(mallory, "applier")
    url = settings_of(mallory, "postgres").database.url.get_secret_value()
    with (
        psycopg.connect(url, autocommit=True) as admin,
        running(settings_of(mallory, "applier"), NullEncoder()) as worker,
    ):
        wait_fresh(worker)
        admin.execute("ALTER TABLE app.docs_embedding OWNER TO mallory")
        mallory.execute(TRIGGER)
        mallory.execute("GRANT UPDATE ON app.docs_embedding TO mallory")
        mallory.execute("UPDATE app.docs_embedding SET embedding = NULL WHERE id = 2; TRUNCATE app.ran")
        mallory.execute("UPDATE app.docs SET body = 'edited' WHERE id = 1")
        until("it says so", lambda: "OWNER TO applier" in str(worker.keepers[0].last_error))
        assert count(mallory, "app.ran") == 0
        mallory.execute("DROP TRIGGER evil ON app.docs_embedding")
        admin.execute("ALTER TABLE app.docs_embedding OWNER TO applier")
        wait_fresh(worker)
