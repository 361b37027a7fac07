"""What it brings and costs to share a sync: rows per second of several workers, takeovers, and what they take
of the server while there is nothing to do."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.harness import (
    NULL_WORKER,
    Report,
    await_fresh,
    await_queue,
    cpu_seconds,
    database,
    worker_process,
)
from tests.benchmarks.null_worker import DEVICE_ROWS
from tests.support import Connection, until

WORKERS = {"device": (1, 2, 4, 8), "null": (1, 2, 4)}
NAMES = {"device": f"encoders of {DEVICE_ROWS:,} rows/s", "null": "null encoders"}
WAL = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8"
Process = subprocess.Popen[bytes]


@dataclass
class Spent:
    """What some rows took: seconds, of the processor for the workers and for the server, bytes of WAL."""

    rows: int
    seconds: float
    workers: float
    server: float
    wal: float

    @property
    def rate(self) -> float:
        return self.rows / self.seconds


def shares(report: Report, quick: bool) -> None:
    """Encoders as quick as a device of each worker's own, then as quick as can be."""
    rows = 4_000 if quick else 40_000
    for kind, name in NAMES.items():
        first: dict[str, float] = {}
        for number in WORKERS[kind]:
            for what, spent in _measured(number, kind, rows):
                label = f"{what}, {number} workers, {name}"
                linear = spent.rate / first.setdefault(what, spent.rate) / number
                report.add(label, spent.rate, "rows/s")
                if number > 1:
                    report.add(f"{label}: of linear", linear, "", "≥ 0.8", linear >= 0.8)
                report.add(f"{label}: cores of the workers", spent.workers / spent.seconds, "")
                report.add(f"{label}: cores of the server", spent.server / spent.seconds, "")
                report.add(f"{label}: of the server a row", spent.server / spent.rows * 1e6, "µs")
                report.add(f"{label}: WAL a row", spent.wal / spent.rows, "bytes")


def _measured(number: int, kind: str, rows: int) -> Iterator[tuple[str, Spent]]:
    """Backfill and live changes."""
    with database() as (url, connection), sharing(url, connection, number, kind) as workers:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, %s) g", (rows,))
        connection.execute("DELETE FROM freshvec.queue_docs")  # so that a walk has to find them
        connection.execute("COMMIT")
        connection.execute("VACUUM ANALYZE docs")
        walk = "SELECT freshvec.ask_for_walk('docs', 'the benchmark')"
        yield "backfill", _spent(connection, workers, walk, rows, lambda: await_walk(connection))
        half = rows // 2
        edit = f"UPDATE docs SET body = body || ' changed' WHERE id <= {half}"
        yield "changes", _spent(connection, workers, edit, half, lambda: await_queue(connection))


def await_walk(connection: Connection) -> None:
    """Until a walk that was asked for is over."""
    over = "SELECT NOT rescan_waiting AND backfill_done AND backlog = 0 FROM freshvec.status"
    until("the walk is over", lambda: connection.execute(over).fetchone() == (True,), 300)


def _spent(
    connection: Connection, workers: list[Process], begin: str, rows: int, wait: Callable[[], None]
) -> Spent:
    def now() -> tuple[float, float, float, float]:
        (wal,) = connection.execute(WAL).fetchone() or (0.0,)
        return time.perf_counter(), sum(cpu_seconds(w.pid) for w in workers), server_cpu(connection), wal

    connection.execute(begin.encode())
    before = now()
    wait()
    return Spent(rows, *(after - first for after, first in zip(now(), before, strict=True)))


@contextmanager
def sharing(url: str, connection: Connection, number: int, *options: str) -> Iterator[list[Process]]:
    """So many workers, once each has its shards."""
    with ExitStack() as stack:
        command = (*NULL_WORKER, url, "share", *options)
        workers = [stack.enter_context(worker_process(url, *command)) for _ in range(number)]
        until("each has its shards", lambda: is_fair(connection, number))
        yield workers


def is_fair(connection: Connection, number: int) -> bool:
    if connection.execute("SELECT to_regclass('freshvec.workers')").fetchone() == (None,):
        return False
    found = connection.execute("SELECT count(*), sum(shards), max(shards) FROM freshvec.workers").fetchone()
    return found == (number, 64, -(-64 // number))


def server_cpu(connection: Connection) -> float:
    """Seconds of processor time of all processes of the server so far."""
    (backend,) = connection.execute("SELECT pg_backend_pid()").fetchone() or (0,)
    postmaster = int(Path(f"/proc/{backend}/stat").read_text().rsplit(")", 1)[1].split()[1])
    fields = Path(f"/proc/{postmaster}/stat").read_text().rsplit(")", 1)[1].split()
    ended = sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    return ended + sum(cpu_seconds(int(child)) for child in children)


def takeovers(report: Report, quick: bool) -> None:
    """From a worker's end to the moment at which others have its shards, and what idle workers cost."""
    connections = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'freshvec%'"
    with database() as (url, connection):
        connection.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 1000) g")
        with sharing(url, connection, 1):
            await_fresh(connection)
            with one_more(url, connection, 2) as second:
                second.send_signal(signal.SIGSTOP)
                report.at_most("shards of a stopped worker are others'", _until_fair(connection, 1), 5, "s")
                second.send_signal(signal.SIGCONT)
                report.at_most("it has some again", _until_fair(connection, 2), 5, "s")
                second.terminate()
                report.at_most("those of one that is told to stop", _until_fair(connection, 1), 5, "s")
            with one_more(url, connection, 2) as second:
                second.kill()
                report.at_most("those of one that is killed", _until_fair(connection, 1), 5, "s")
    number, seconds = 8, 3 if quick else 20
    with database() as (url, connection), sharing(url, connection, number) as workers:
        connection.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 1000) g")
        await_fresh(connection)
        time.sleep(12)  # the last figures of its activity are written
        before, server = sum(cpu_seconds(w.pid) for w in workers), server_cpu(connection)
        (written,) = connection.execute(WAL).fetchone() or (0.0,)
        time.sleep(seconds)
        idle = (sum(cpu_seconds(w.pid) for w in workers) - before) * 10 / seconds
        report.at_most(f"CPU of {number} idle workers in 10 s", idle, 0.1, "s")
        report.add(
            "CPU of the server for them in 10 s", (server_cpu(connection) - server) * 10 / seconds, "s"
        )
        (now,) = connection.execute(WAL).fetchone() or (0.0,)
        report.add("WAL for them in 10 s", (now - written) * 10 / seconds, "bytes")
        report.add("their connections", (connection.execute(connections).fetchone() or (0,))[0], "")
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        report.add("their locks", (connection.execute(locks).fetchone() or (0,))[0], "")


@contextmanager
def one_more(url: str, connection: Connection, number: int) -> Iterator[Process]:
    """Another worker, once all of them have their shards."""
    with worker_process(url, *NULL_WORKER, url, "share", may_end=True) as worker:
        until("each has its shards", lambda: is_fair(connection, number))
        yield worker


def _until_fair(connection: Connection, number: int) -> float:
    began = time.perf_counter()
    until("the shards are dealt out anew", lambda: is_fair(connection, number), 60)
    return time.perf_counter() - began
