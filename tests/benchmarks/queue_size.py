"""What remains of a million changes that went through the queue: its size, and how fast it is read."""

import threading
import time
from typing import Self

import psycopg

from tests.benchmarks.freshness import edits
from tests.benchmarks.harness import (
    NULL_WORKER,
    Report,
    await_fresh,
    await_queue,
    database,
    median,
    worker_process,
)
from tests.support import Connection, until

SIZE = "SELECT pg_relation_size('freshvec.queue_docs'), pg_total_relation_size('freshvec.queue_docs')"
STATEMENT = 10_000
MB = 1_000_000


class Peak:
    """The largest size of the queue seen, in bytes: of its table, and of its indexes with it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.table = self.whole = 0

    def _look(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._stopping.wait(0.05):
                table, whole = connection.execute(SIZE).fetchone() or (0, 0)
                self.table, self.whole = max(self.table, table), max(self.whole, whole)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stopping.set()
        self._thread.join()


def queue_size(report: Report, quick: bool) -> None:
    """Statements of 10,000 rows, one after the other, beside a worker without a model."""
    changes = 50_000 if quick else MB
    _size(report, changes)
    _snapshot(report, changes, 20 if quick else 200)


def _size(report: Report, changes: int) -> None:
    with database() as (url, connection), worker_process(url, *NULL_WORKER, url):
        _fill(connection)
        began = time.perf_counter()
        with Peak(url) as peak:
            _change(connection, changes)
            await_queue(connection)
        seconds = time.perf_counter() - began
        report.add(f"{changes:,} changes made and read", changes / seconds, "/s")
        report.at_most(f"the queue's largest size, {changes:,} changes", peak.table / MB, 60, "MB")
        report.add("that with its indexes, at its largest", peak.whole / MB, "MB")
        _await_vacuum(connection)
        table, whole = connection.execute(SIZE).fetchone() or (0, 0)
        report.at_most("the queue's size after autovacuum", table / MB, 20, "MB")
        report.add("that with its indexes, after autovacuum", whole / MB, "MB")


def _snapshot(report: Report, changes: int, count: int) -> None:
    """Commit to visible before, and beside a snapshot that keeps every deleted entry alive."""
    with database() as (url, connection), worker_process(url, *NULL_WORKER, url):
        _fill(connection)
        first = STATEMENT + 1  # rows that nothing else changes: their versions stay few
        edits(url, first, 5, "warm")
        before = median(edits(url, first, count, "before"))
        with psycopg.connect(url) as foreign:
            foreign.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            foreign.execute("SELECT count(*) FROM docs")
            _change(connection, changes)
            await_queue(connection)
            beside = median(edits(url, first, count, "beside"))
            foreign.rollback()
    report.add("commit to visible without a model, p50", before, "ms")
    report.at_most(f"the same beside a snapshot older than {changes:,} changes", beside / before, 3, "×")


def _fill(connection: Connection) -> None:
    rows = STATEMENT + 1000
    connection.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, %s) g", (rows,))
    await_fresh(connection)


def _change(connection: Connection, changes: int) -> None:
    for turn in range(changes // STATEMENT):
        connection.execute(
            "UPDATE docs SET body = 'changed ' || %s || ' of row ' || id WHERE id <= %s", (turn, STATEMENT)
        )


def _await_vacuum(connection: Connection) -> None:
    """Until autovacuum, at the server's own pace, has been at the queue after the last change."""
    began = connection.execute("SELECT clock_timestamp()").fetchone() or (None,)
    vacuumed = (
        "SELECT last_autovacuum > %s FROM pg_stat_all_tables WHERE relid = 'freshvec.queue_docs'::regclass"
    )
    until("the queue is vacuumed", lambda: connection.execute(vacuumed, began).fetchone() == (True,), 150)
