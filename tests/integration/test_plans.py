"""Every statement over 500,000 rows looks at about as many as it answers for, by an index.

The plans are those of the statements as they are run, and in both of the ways in which Postgres may plan
them: for the values that are given, and for any. Postgres 15 is the one with auto_explain.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import psycopg
import pytest

from freshvec.capture import queue
from freshvec.capture.queue import QueueReader
from freshvec.db import connect
from freshvec.embedded import EmbeddedPostgres
from freshvec.health.status import read as read_status
from freshvec.records import Fate, Key, Model, Outcome
from freshvec.scans import backfill
from freshvec.scans.backfill import Backfill
from freshvec.scans.faults import faults
from freshvec.scans.orphans import OrphanScan
from freshvec.scans.vectors import VectorSample
from freshvec.scans.verify import verify
from freshvec.schema import migrations
from freshvec.schema.apply import apply
from freshvec.source.bound import BoundSync
from freshvec.source.rows import RowReader
from freshvec.target.search import search
from freshvec.target.upsert import TargetWriter
from tests.integration.plans import TRANSITION, Plan, recorded
from tests.support import MODEL, Connection, NullEncoder, bound_sync, settings_for, sync_of, until
from tests.support import backfill as make_fresh

ROWS = 500_000
BULK = 50_000  # entries of the queue
NULL = Model(MODEL, NullEncoder.dimension, NullEncoder().max_tokens, NullEncoder.fingerprint)
KEYS = {
    "single": ("id bigint", "g"),
    "composite": ("a int, b text", "g / 1000, lpad(mod(g, 1000)::text, 3, '0')"),
}

FILL = """
CREATE TABLE {name} ({columns}, body text, note int DEFAULT 0);
INSERT INTO {name} SELECT {key}, 'text ' || g FROM generate_series(0, %(rows)s - 1) g;
ALTER TABLE {name} ADD PRIMARY KEY ({names});
"""
FILL_TARGET = """
INSERT INTO {name}_embedding ({names}, embedding, content_hash, fingerprint, fence)
SELECT {names}, '{{1,2,3,4,5,6,7,8}}', substring(sha256(convert_to(body, 'UTF8')) FOR 16), %(fingerprint)s, 1
  FROM {name};
UPDATE freshvec.sync SET backfill_done = true, rows_embedded = %(rows)s WHERE name = '{name}';
INSERT INTO freshvec.queue_{name} (bulk, {numbered}) SELECT true, {names} FROM {name} LIMIT %(bulk)s;
INSERT INTO freshvec.queue_{name} (bulk, {numbered}) SELECT false, {names} FROM {name} LIMIT 500;
VACUUM ANALYZE {name}, {name}_embedding, freshvec.queue_{name};
"""


@dataclass(frozen=True)
class Big:
    """A table of many rows that is kept, with a long queue. `keys` are 1,000 of it, from all over it."""

    url: str
    bound: BoundSync
    keys: list[Key]

    @property
    def tables(self) -> tuple[str, str, str]:
        """Source, target and queue."""
        return self.bound.source_name[1], self.bound.target_name[1], f"queue_{self.bound.name}"


@pytest.fixture(scope="module")
def database(server15: EmbeddedPostgres) -> Iterator[str]:
    with psycopg.connect(server15.url(), autocommit=True) as admin:
        for setting in ("fsync = off", "max_wal_size = '4GB'", "autovacuum = off"):
            admin.execute(f"ALTER SYSTEM SET {setting}")
        admin.execute("SELECT pg_reload_conf()")
        admin.execute("CREATE DATABASE plans")
        yield server15.url("plans")
        admin.execute("DROP DATABASE plans WITH (FORCE)")
        admin.execute("ALTER SYSTEM RESET ALL")
        admin.execute("SELECT pg_reload_conf()")


@pytest.fixture(scope="module", params=KEYS)
def big(request: pytest.FixtureRequest, database: str) -> Big:
    name = request.param
    columns, key = KEYS[name]
    names = ", ".join(column.split()[0] for column in columns.split(", "))
    numbered = ", ".join(f"k{place}" for place, _ in enumerate(names.split(", "), 1))
    parts = {"name": name, "columns": columns, "names": names, "key": key, "numbered": numbered}
    given = {"rows": ROWS, "bulk": BULK, "fingerprint": NULL.fingerprint}
    settings = settings_for(database, sync_of(name, name, target={"type": "real[]"}))

    def fill(connection: Connection, script: str) -> None:
        for statement in script.format(**parts).strip().split(";\n"):
            connection.execute(statement.rstrip(";"), given if "%(" in statement else None)

    with psycopg.connect(database, autocommit=True) as application:
        fill(application, FILL)
        with connect(settings.database.url, "test") as connection:
            migrations.migrate(connection)
            bound, _ = apply(connection, settings.sync[0], NULL)
        fill(application, FILL_TARGET)
        texts = ", ".join(f"{column}::text" for column in names.split(", "))
        numbers = f"SELECT *, row_number() OVER (ORDER BY {names}) AS n FROM {name}"
        every = f"SELECT {texts} FROM ({numbers}) AS d WHERE n % 500 = 1"
        keys = application.execute(every).fetchall()
    assert len(keys) == 1000
    return Big(database, bound, keys)


Run = Callable[[Connection, Big], object]


def read_page(connection: Connection, big: Big) -> object:
    """A page in the middle of the walk."""
    bound = big.bound
    backfill.checkpoint(connection, bound, big.keys[500], 1, 0)
    connection.execute("UPDATE freshvec.sync SET backfill_done = false WHERE name = %s", (bound.name,))
    return Backfill(connection, bound).read_page(1000)


def read_queue(connection: Connection, big: Big, *, bulk: bool) -> object:
    """Twice: the second reading begins where the first one has ended, with its entries in flight."""
    reader = QueueReader(connection, big.bound)
    handed_out = [entry for change in reader.read(200, [], bulk=bulk)[1] for entry in change.entries]
    return reader.read(len(handed_out), handed_out, bulk=bulk)


def look_at_queue(connection: Connection, big: Big) -> object:
    """What is asked between readings."""
    reader = QueueReader(connection, big.bound)
    return reader.rescans(), reader.is_empty()


def read_quiet_queue(connection: Connection, big: Big) -> object:
    """Nothing but what is in flight is found, and after that only what is new is looked at."""
    connection.execute(big.bound.compose("DELETE FROM {queue}"))
    queue.append(connection, big.bound, big.keys[:100])
    reader = QueueReader(connection, big.bound)
    handed_out = [entry for change in reader.read(100, [], bulk=True)[1] for entry in change.entries]
    for bulk in (False, True) * 2:
        assert not reader.read(1, handed_out, bulk=bulk)[1]
    return reader.is_empty()


def write(connection: Connection, big: Big, fate: Fate) -> object:
    vector = np.ones(8, dtype=np.float32) if fate is Fate.STORE else None
    content_hash = b"0123456789abcdef" if fate in (Fate.STORE, Fate.TOUCH) else None
    outcomes = [Outcome(key, 10**9, fate, vector, content_hash) for key in big.keys]
    return TargetWriter(connection, big.bound).write(outcomes)


def clear_tombstones(connection: Connection, big: Big) -> object:
    outcomes = [Outcome(key, 10**9, Fate.STORE) for key in big.keys]
    writer = TargetWriter(connection, big.bound)
    writer.write(outcomes)
    writer.clear_tombstones(outcomes)
    return writer


def change_queue(connection: Connection, big: Big) -> object:
    queue.append(connection, big.bound, big.keys)
    changes = QueueReader(connection, big.bound).read(1000, [], bulk=True)[1]
    answered = [entry for change in changes for entry in change.entries]
    assert len(queue.delete(connection, big.bound, answered)) == 1000
    return answered


def scan_orphans(connection: Connection, big: Big) -> object:
    scan = OrphanScan(connection, big.bound)
    scan.queue(1000)
    return scan.queue(1000)


# What is run, and how many rows of source, target and queue it may look at in one statement.
OPERATIONS: dict[str, tuple[Run, int, int, int]] = {
    "page": (read_page, 1000, 1000, 0),
    "keys": (lambda connection, big: RowReader(connection, big.bound).read(big.keys), 1000, 1000, 0),
    "live": (partial(read_queue, bulk=False), 0, 0, 5000),
    "bulk": (partial(read_queue, bulk=True), 0, 0, 500),
    "between": (look_at_queue, 0, 0, 1),
    "quiet queue": (read_quiet_queue, 0, 0, BULK + 500),
    "append and delete": (change_queue, 0, 0, 1000),
    "store": (partial(write, fate=Fate.STORE), 1000, 1000, 0),
    "touch": (partial(write, fate=Fate.TOUCH), 0, 1000, 0),
    "clear": (partial(write, fate=Fate.CLEAR), 0, 1000, 0),
    "remove": (partial(write, fate=Fate.REMOVE), 1000, 1000, 0),
    "tombstones": (clear_tombstones, 1000, 1000, 0),
    "orphans": (scan_orphans, 1000, 1000, 0),
    "faults": (lambda connection, big: faults(connection, big.bound, big.keys), 1000, 1000, BULK + 500),
    "status": (lambda connection, big: read_status(connection), 0, 0, BULK + 500),
}


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_statement_of_ours_looks_at_no_more_rows_than_it_answers_for(
    big: Big, operation: str, mode: str
) -> None:
    run, *most = OPERATIONS[operation]
    with connect(settings_for(big.url).database.url, "test") as connection:
        connection.prepare_threshold = 0
        connection.execute(f"SET plan_cache_mode = {mode}")
        with recorded(connection) as plans, connection.transaction(force_rollback=True):
            run(connection, big)
    check(plans, big, most)
    assert any(plan.read(table) for plan in plans for table in big.tables), "the plans were seen"


def check(plans: list[Plan], big: Big, most: list[int]) -> None:
    """No statement reads a whole table, or more rows of one than it may."""
    for plan, (table, bound) in itertools.product(plans, zip(big.tables, most, strict=True)):
        assert plan.read(table) <= bound, plan
        if table != big.tables[2]:  # rows of a queue are not found by their keys
            assert "Seq Scan" not in {scan.kind for scan in plan.scans if scan.table == table}, plan


def test_verify_reads_range_by_range(big: Big) -> None:
    with connect(settings_for(big.url).database.url, "test") as connection:
        with recorded(connection) as plans:
            report = verify(connection, big.bound)
        assert (report.rows, report.is_fresh) == (ROWS, True)
    check(plans, big, [5000, 5000, 0])
    assert sum(plan.read(big.tables[0]) for plan in plans) < 2.1 * ROWS


def test_a_sample_reads_a_few_blocks(big: Big) -> None:
    with connect(settings_for(big.url).database.url, "test") as connection, recorded(connection) as plans:
        sample = VectorSample(connection, big.bound, 10)
        assert sample.next(NullEncoder()) is not None
    check(plans, big, [64, 5000, 0])


APPLICATION = (
    "UPDATE {name} SET body = 'edited' WHERE {is_row}",
    "UPDATE {name} SET note = 1 WHERE {is_row}",
    "DELETE FROM {name} WHERE {is_row}",
    "INSERT INTO {name} VALUES ({key}, 'new') ON CONFLICT ({names}) DO UPDATE SET body = excluded.body",
    "SELECT freshvec.is_fresh('{name}', {key})",
    "SELECT * FROM {name}_embedded WHERE {is_row}",
)


@pytest.mark.parametrize("statement", APPLICATION)
def test_the_applications_small_statement_stays_small(big: Big, statement: str) -> None:
    """With the settings it has, in a session in which the trigger's plans are cached."""
    names = ", ".join(big.bound.key_columns)
    key = ", ".join(f"'{part}'" for part in big.keys[700])
    made = statement.format(name=big.bound.name, names=names, key=key, is_row=f"({names}) = ({key})")
    most = [1, 1, BULK + 500 if "is_fresh" in statement else 0]
    with psycopg.connect(big.url, autocommit=True) as session, recorded(session) as plans:
        for _ in range(8):
            with session.transaction(force_rollback=True):
                session.execute(made)
    check(plans, big, most)
    assert plans


def test_a_large_statement_after_many_small_ones_is_not_quadratic(big: Big) -> None:
    first = big.bound.key_columns[0]
    with psycopg.connect(big.url, autocommit=True) as session:
        names, key = ", ".join(big.bound.key_columns), ", ".join(f"'{part}'" for part in big.keys[700])
        for _ in range(12):
            session.execute(f"UPDATE {big.bound.name} SET body = body || '.' WHERE ({names}) = ({key})")
        with recorded(session) as plans, session.transaction(force_rollback=True):
            many = 10 if len(big.bound.key) > 1 else 10_000
            session.execute(f"UPDATE {big.bound.name} SET body = body || '!' WHERE {first} < {many}")
    (noted,) = [plan.read(TRANSITION) for plan in plans if plan.read(TRANSITION)]
    assert 20_000 <= noted <= 20_100, "old and new rows once each, and a look at how many there are"


def test_a_search_uses_the_index_of_the_vectors(url: str, docs: Connection) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 5000) g")
    settings = settings_for(url, sync_of("docs"))
    make_fresh(settings, NullEncoder())
    docs.execute("CREATE INDEX near ON docs_embedding USING hnsw (embedding vector_cosine_ops)")
    docs.execute("ANALYZE docs; ANALYZE docs_embedding")
    nearest = "SELECT id FROM docs_embedded ORDER BY embedding <=> %s::vector LIMIT 10"
    explained = docs.execute(f"EXPLAIN (ANALYZE) {nearest}", (str([1.0] * 8),)).fetchall()
    plan = "\n".join(line for (line,) in explained)
    assert "Index Scan using near" in plan
    assert "Seq Scan" not in plan

    def scans() -> int:
        docs.execute("SELECT pg_stat_force_next_flush(), pg_stat_clear_snapshot()")
        used = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'near'"
        (number,) = docs.execute(used).fetchone() or (0,)
        return int(number)

    before = scans()
    with connect(settings.database.url, "test") as connection:
        bound = bound_sync(connection, settings, NullEncoder())
        assert len(search(connection, bound, np.ones(8, dtype=np.float32), 5)) == 5
    until("our own search is counted, too", lambda: scans() == before + 1)
