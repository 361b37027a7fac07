"""What 50 syncs of one worker cost beside one: connections, threads, CPU while idle, memory."""

import time
from pathlib import Path

from tests.benchmarks.harness import (
    NULL_WORKER,
    Report,
    cpu_seconds,
    database,
    resident_mib,
    worker_process,
)
from tests.support import Connection, until

SYNCS = 50
ROWS = 100
OURS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'freshvec%'"


def many_syncs(report: Report, quick: bool) -> None:
    """Without a model, whose memory would hide theirs."""
    seconds = 3 if quick else 30  # a sweep among them
    one = _resident(1)
    with database() as (url, connection):
        _make(connection, SYNCS)
        with worker_process(url, *NULL_WORKER, url, str(SYNCS)) as worker:
            _await_all(connection, SYNCS)
            for place in range(SYNCS):
                connection.execute(f"UPDATE t{place} SET body = body || ' changed'".encode())
            _await_all(connection, SYNCS)
            (connections,) = connection.execute(OURS).fetchone() or (0,)
            report.at_most(f"connections of {SYNCS} syncs", connections, 8)
            threads = len(list(Path(f"/proc/{worker.pid}/task").iterdir()))
            report.at_most(f"threads of {SYNCS} syncs", threads, 20)
            time.sleep(8)  # the last figures of its activity are written
            before = cpu_seconds(worker.pid)
            time.sleep(seconds)
            idle = (cpu_seconds(worker.pid) - before) * 10 / seconds
            report.at_most(f"CPU of an idle worker with {SYNCS} syncs in 10 s", idle, 0.05, "s")
            grown = (resident_mib(worker.pid) - one) / (SYNCS - 1)
            report.add("resident memory with one sync", one, "MiB")
            report.at_most("resident memory a further sync", grown, 1, "MiB")


def _resident(syncs: int) -> float:
    with database() as (url, connection):
        _make(connection, syncs)
        with worker_process(url, *NULL_WORKER, url, str(syncs)) as worker:
            _await_all(connection, syncs)
            for place in range(syncs):
                connection.execute(f"UPDATE t{place} SET body = body || ' changed'".encode())
            _await_all(connection, syncs)
            time.sleep(8)
            return resident_mib(worker.pid)


def _make(connection: Connection, syncs: int) -> None:
    for place in range(syncs):
        connection.execute(f"CREATE TABLE t{place} (id bigint PRIMARY KEY, body text)".encode())
        connection.execute(
            f"INSERT INTO t{place} SELECT g, 'text ' || g FROM generate_series(1, {ROWS}) g".encode()
        )


def _await_all(connection: Connection, syncs: int) -> None:
    """Until the worker has made its tables and every row of each sync is embedded."""
    there = "SELECT to_regclass('freshvec.status') IS NOT NULL"
    until("there is a schema", lambda: connection.execute(there).fetchone() == (True,))
    fresh = "SELECT count(*) FROM freshvec.status WHERE backfill_done AND backlog = 0"
    until("every sync is fresh", lambda: connection.execute(fresh).fetchone() == (syncs,), 300)
