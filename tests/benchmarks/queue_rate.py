"""How fast the parts beside the encoder are: keys, live changes, vectors into the target."""

import time

import numpy as np

from freshvec.db import connect
from freshvec.records import Fate, Model, Outcome
from freshvec.source.bind import bind
from freshvec.target.upsert import TargetWriter
from tests.benchmarks.harness import (
    NULL_WORKER,
    Report,
    WideNullEncoder,
    await_fresh,
    await_queue,
    database,
    median,
    worker_process,
)
from tests.support import Connection, backfill, settings_for, sync_of

FILL = "INSERT INTO docs SELECT g, 'text number ' || g FROM generate_series(1, %s) g"
ROWS_PER_TRANSACTION = 1000


def queue(report: Report, quick: bool) -> None:
    _keys(report, quick)
    _live(report, quick)
    _vectors(report, quick)


def _keys(report: Report, quick: bool) -> None:
    """From the commit of one statement that changes every row until the queue is empty again."""
    rows, turns = (5000, 1) if quick else (100_000, 3)
    with database() as (url, connection):
        connection.execute(FILL, (rows,))
        with worker_process(url, *NULL_WORKER, url):
            await_fresh(connection)
            rates = []
            for turn in range(turns):
                connection.execute("UPDATE docs SET body = body || %s", (f" {turn}",))
                rates.append(rows / _seconds_until_empty(connection))
    report.at_least("keys through the queue, no model", median(rates), 60_000, "/s")


def _live(report: Report, quick: bool) -> None:
    """The same of changes that are no bulk: many statements of few rows, committed together."""
    rows, turns = (5000, 1) if quick else (50_000, 3)
    with database() as (url, connection):
        connection.execute(FILL, (rows,))
        with worker_process(url, *NULL_WORKER, url, "wide"):
            await_fresh(connection)
            rates = []
            for turn in range(turns):
                with connection.transaction():
                    for first in range(1, rows, 50):
                        connection.execute(
                            "UPDATE docs SET body = body || %s WHERE id BETWEEN %s AND %s",
                            (f" {turn}", first, first + 49),
                        )
                    bulk = connection.execute("SELECT count(*) FROM freshvec.queue_docs WHERE bulk")
                    assert bulk.fetchone() == (0,)
                rates.append(rows / _seconds_until_empty(connection))
    report.at_least("live changes, no model, 384 dimensions", median(rates), 10_000, "/s")


def _seconds_until_empty(connection: Connection) -> float:
    began = time.perf_counter()
    await_queue(connection)
    return time.perf_counter() - began


def _vectors(report: Report, quick: bool) -> None:
    """The target's writer alone, 1,000 rows per transaction: a first fill, then the same rows again."""
    rows, turns = (5000, 1) if quick else (50_000, 3)
    with database() as (url, connection):
        settings = settings_for(url, sync_of("docs"))
        encoder = WideNullEncoder()
        backfill(settings, encoder)  # of nothing: it makes the target
        connection.execute(FILL, (rows,))
        vectors = np.random.default_rng(1).standard_normal((rows, encoder.dimension), dtype=np.float32)
        new: list[float] = []
        there: list[float] = []
        with connect(settings.database.url, "benchmark") as writing:
            model = Model("null", encoder.dimension, encoder.max_tokens, encoder.fingerprint)
            target = TargetWriter(writing, bind(writing, settings.sync[0], model))
            for fence in range(1, 2 * turns + 1):
                if fence % 2:
                    connection.execute("TRUNCATE docs_embedding")
                began = time.perf_counter()
                for start in range(0, rows, ROWS_PER_TRANSACTION):
                    with writing.transaction():
                        target.write(
                            [
                                Outcome((str(i + 1),), fence, Fate.STORE, vectors[i], bytes(16))
                                for i in range(start, min(start + ROWS_PER_TRANSACTION, rows))
                            ]
                        )
                (new if fence % 2 else there).append(rows / (time.perf_counter() - began))
        found = connection.execute("SELECT count(*), min(fence) FROM docs_embedding").fetchone()
        assert found == (rows, 2 * turns), found
    report.at_least("write-back of 384-dim vectors, new rows", median(new), 60_000, "rows/s")
    report.at_least("write-back of 384-dim vectors, rows that are there", median(there), 48_000, "rows/s")
