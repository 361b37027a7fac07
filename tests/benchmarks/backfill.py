"""Backfill: its cost beside encoding alone, its pages late in a large table."""

import time

from freshvec.db import connect
from freshvec.encoding.batching import plan_batches
from freshvec.encoding.encoder import OnnxEncoder
from freshvec.records import Model
from freshvec.scans.backfill import Backfill
from freshvec.source.bind import bind
from tests.benchmarks.harness import Report, WideNullEncoder, database, fill, median, real_encoder, texts
from tests.support import backfill, settings_for, sync_of

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
                if len(page) < PAGE:
                    break
                seconds.append(time.perf_counter() - began)
        tenth = len(seconds) // 10
        early, late = median(seconds[:tenth]), median(seconds[-tenth:])
        report.add("a page of 1,000 rows, early", early * 1000, "ms")
        report.at_most("page time late / early", late / early, 1.5)
