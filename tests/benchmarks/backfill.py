"""Backfill: its cost beside encoding alone, its pages late in a large table, its rate in both."""

import time

from freshvec.db import connect
from freshvec.encoding.batching import plan_batches
from freshvec.encoding.encoder import OnnxEncoder
from freshvec.records import Model
from freshvec.scans.backfill import Backfill
from freshvec.source.bind import bind
from tests.benchmarks.harness import (
    NULL_WORKER,
    Report,
    WideNullEncoder,
    database,
    fill,
    median,
    real_encoder,
    resident_mib,
    texts,
    worker_process,
)
from tests.support import backfill, exists, settings_for, sync_of, until

BUDGET = 1024
PAGE = 1000


def encode_alone(encoder: OnnxEncoder, rows: list[str]) -> float:
    """Seconds to encode the texts in the same windows and batches, with no database."""
    began = time.perf_counter()
    for start in range(0, len(rows), PAGE):
        tokens = encoder.tokenize(rows[start : start + PAGE])
        for batch in plan_batches([len(text) for text in tokens], lambda: BUDGET):
            encoder.encode([tokens[i] for i in batch.indices])
    return time.perf_counter() - began


def overhead(report: Report, quick: bool) -> None:
    """Wall time of a whole backfill against encoding alone."""
    encoder, rows = real_encoder(), texts(600 if quick else 5000)
    alone, whole = [], []
    for _ in range(1 if quick else 3):
        alone.append(encode_alone(encoder, rows))
        with database() as (url, connection):
            fill(connection, rows)
            began = time.perf_counter()
            backfill(settings_for(url, sync_of("docs"), batch_tokens=BUDGET, page_rows=PAGE), encoder)
            whole.append(time.perf_counter() - began)
    report.add("encoding alone", len(rows) / median(alone), "texts/s")
    report.add("backfill", len(rows) / median(whole), "rows/s")
    report.at_most(
        "backfill / encoding alone, wall", median([w / a for w, a in zip(whole, alone, strict=True)]), 1.10
    )


def pages(report: Report, quick: bool) -> None:
    """Page time late in a large table against early, and the rate without a model."""
    rows = 20_000 if quick else 500_000
    with database() as (url, connection):
        connection.execute(
            "INSERT INTO docs SELECT g, 'text number ' || g FROM generate_series(1, %s) g", (rows,)
        )
        connection.execute("ANALYZE docs")
        settings = settings_for(url, sync_of("docs"), batch_tokens=65536)
        encoder = WideNullEncoder()
        began = time.perf_counter()
        backfill(settings, encoder)
        report.add(
            f"backfill of {rows:,} rows, 384 dimensions, no model",
            rows / (time.perf_counter() - began),
            "rows/s",
        )
        with connect(settings.database.url, "benchmark") as reading:
            bound = bind(reading, settings.sync[0], Model("null", 384, 256, b"other"))
            walk = Backfill(reading, bound)
            walk.restart([])
            seconds = []
            while True:
                began = time.perf_counter()
                page = walk.read_page(PAGE)
                if len(page.rows) < PAGE:
                    break
                seconds.append(time.perf_counter() - began)
        tenth = len(seconds) // 10
        early, late = median(seconds[:tenth]), median(seconds[-tenth:])
        report.add("a page of 1,000 rows, early", early * 1000, "ms")
        report.at_most("page time late / early", late / early, 1.5)


def scale(report: Report, quick: bool) -> None:
    """A worker process without a model, 384 dimensions: rate and memory in a small table and a large one."""
    few, many, turns = (5000, 20_000, 1) if quick else (100_000, 2_000_000, 3)
    small = [_whole(few) for _ in range(turns)]
    rate, memory = _whole(many)
    rates, memories = [r for r, _ in small], [m for _, m in small]
    report.at_least(f"backfill of {few:,} rows, no model", median(rates), 30_000, "rows/s")
    report.at_least(f"backfill of {many:,} rows, no model", rate, 30_000, "rows/s")
    report.at_least(f"rate at {many:,} rows / at {few:,}", rate / median(rates), 0.9)
    report.at_most(f"resident memory at {many:,} rows / at {few:,}", memory / median(memories), 1.1)


def _whole(rows: int) -> tuple[float, float]:
    """Rows per second from the sync's beginning until it is fresh, and the worker's memory then, in MiB."""
    with database() as (url, connection):
        connection.execute(
            "INSERT INTO docs SELECT g, 'text number ' || g FROM generate_series(1, %s) g", (rows,)
        )
        connection.execute("VACUUM ANALYZE docs")
        with worker_process(url, *NULL_WORKER, url, "wide") as worker:
            until("there is a target", lambda: exists(connection, "docs_embedding"))
            began = time.perf_counter()
            done = "SELECT backfill_done FROM freshvec.sync"
            until("it is done", lambda: connection.execute(done).fetchone() == (True,), 600)
            return rows / (time.perf_counter() - began), resident_mib(worker.pid)
