"""Commit to visible: idle, during a burst, during a backfill; and statements that change nothing."""

import hashlib
import time
from collections.abc import Callable

import psycopg

from freshvec.encoding.batching import plan_batches
from tests.benchmarks.harness import (
    Report,
    await_fresh,
    await_queue,
    database,
    fill,
    median,
    one_line_texts,
    percentile,
    real_encoder,
    texts,
    worker_process,
)
from tests.support import Connection, NullEncoder, running, settings_for, sync_of, until, wait_fresh

HASH = "SELECT content_hash FROM docs_embedding WHERE id = %s"


def edit(writing: Connection, reading: Connection, row: int, text: str) -> float:
    """Milliseconds from the commit's return until another session sees the embedding of exactly this text."""
    wanted = hashlib.sha256(text.encode()).digest()[:16]
    writing.execute("UPDATE docs SET body = %s WHERE id = %s", (text, row))
    committed = time.perf_counter()
    while (found := reading.execute(HASH, (row,)).fetchone()) is None or found[0] != wanted:
        if time.perf_counter() - committed > 60:
            raise AssertionError(f"row {row} is not fresh after a minute")
    return (time.perf_counter() - committed) * 1000


def edits(url: str, first: int, count: int, label: str) -> list[float]:
    """The milliseconds of `count` edits, one after the other."""
    with psycopg.connect(url, autocommit=True) as writing, psycopg.connect(url, autocommit=True) as reading:
        return [edit(writing, reading, first + n, f"{label} number {n}, a short text") for n in range(count)]


def edits_while(
    url: str, first: int, count: int, label: str, going: Callable[[Connection], bool]
) -> list[float]:
    """At most `count` edits, one after the other, each begun while something else is still going on."""
    made: list[float] = []
    with psycopg.connect(url, autocommit=True) as writing, psycopg.connect(url, autocommit=True) as reading:
        while len(made) < count and going(reading):
            number = len(made)
            made.append(edit(writing, reading, first + number, f"{label} number {number}, a short text"))
    if not made:
        raise AssertionError(f"the {label} was over before one edit could be made")
    return made


def holds(query: str) -> Callable[[Connection], bool]:
    """Whether a query's answer is true."""
    return lambda connection: connection.execute(query.encode()).fetchone() == (True,)


def freshness(report: Report, quick: bool) -> None:
    """Against a worker process with the real model."""
    count, burst = (20, 200) if quick else (200, 2000)
    encoder = real_encoder()
    alone = []
    for number in range(50):
        began = time.perf_counter()
        encoder.encode(encoder.tokenize([f"encode alone number {number}, a short text"]))
        alone.append((time.perf_counter() - began) * 1000)
    report.add("encoding such a text alone, p50", median(alone), "ms")
    rows = one_line_texts(burst + 500)
    with database() as (url, connection):
        fill(connection, rows)
        first = len(rows) + 1000
        connection.execute(
            "INSERT INTO docs SELECT g, 'a row to edit' FROM generate_series(%s::int, %s::int) g",
            (first, first + count),
        )
        with worker_process(url):
            await_fresh(connection)
            _idle(report, url, first, count)
            _burst(report, connection, url, first, count, burst, quick)
            _backfill(report, connection, url, first, count, quick)


def _idle(report: Report, url: str, first: int, count: int) -> None:
    edits(url, first, 5, "warm")
    idle = edits(url, first, count, "idle")
    report.at_most("commit to visible, idle, p50", median(idle), 15, "ms")
    report.at_most("commit to visible, idle, p99", percentile(idle, 0.99), 35, "ms")


def _burst(
    report: Report, connection: Connection, url: str, first: int, count: int, burst: int, quick: bool
) -> None:
    """Single edits while one statement changes many rows; then a burst alone, against its encoding."""
    connection.execute("UPDATE docs SET body = body || ' in a burst, row ' || id WHERE id <= %s", (burst,))
    going = holds("SELECT EXISTS (SELECT FROM freshvec.queue_docs WHERE bulk)")
    during = edits_while(url, first, count, "burst", going)
    await_queue(connection)
    report.add("edits made during the burst", len(during), "")
    report.at_most(
        f"commit to visible while {burst:,} rows changed, p99", percentile(during, 0.99), 500, "ms"
    )
    encoder = real_encoder()
    ratios = []
    for turn in range(1 if quick else 3):
        changed = [
            row[0]
            for row in connection.execute("SELECT body || %s FROM docs WHERE id <= %s", (f" {turn}", burst))
        ]
        began = time.perf_counter()
        for start in range(0, len(changed), 1000):
            tokens = encoder.tokenize(changed[start : start + 1000])
            for batch in plan_batches([len(text) for text in tokens], lambda: 1024):
                encoder.encode([tokens[i] for i in batch.indices])
        alone = time.perf_counter() - began
        connection.execute("UPDATE docs SET body = body || %s WHERE id <= %s", (f" {turn}", burst))
        began = time.perf_counter()
        await_queue(connection)
        ratios.append((time.perf_counter() - began) / alone)
    report.at_most("burst / its encoding alone", median(ratios), 1.10)


def _backfill(report: Report, connection: Connection, url: str, first: int, count: int, quick: bool) -> None:
    """New rows behind the triggers' back, found by a rescan, while single edits go on."""
    connection.execute("ALTER TABLE docs DISABLE TRIGGER ALL")
    fill(connection, texts(300 if quick else 3000), first + 10_000)
    connection.execute("ALTER TABLE docs ENABLE TRIGGER ALL")
    for event in ("insert", "update", "delete", "truncate"):
        connection.execute(f"ALTER TABLE docs ENABLE ALWAYS TRIGGER freshvec_docs_{event}".encode())
    connection.execute("INSERT INTO freshvec.rescan (sync, reason) VALUES ('docs', 'benchmark')")
    connection.execute("SELECT freshvec.ring('docs')")
    until(
        "the walk has begun",
        lambda: connection.execute("SELECT NOT backfill_done FROM freshvec.sync").fetchone() == (True,),
    )
    during = edits_while(url, first, count, "backfill", holds("SELECT NOT backfill_done FROM freshvec.sync"))
    report.add("edits made during the backfill", len(during), "")
    report.at_most("commit to visible while a backfill runs, p99", percentile(during, 0.99), 500, "ms")


def touch(report: Report, quick: bool) -> None:
    """A statement that touches rows without changing key or text."""
    with database() as (url, connection):
        connection.execute("ALTER TABLE docs ADD views int DEFAULT 0")
        connection.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 2000) g")
        encoder = NullEncoder()
        with running(settings_for(url, sync_of("docs")), encoder) as service:
            wait_fresh(service)
            versions = "SELECT id, xmin::text FROM docs_embedding ORDER BY id"
            before, encoded = connection.execute(versions).fetchall(), encoder.encoded
            connection.execute("UPDATE docs SET views = views + 1")
            connection.execute("INSERT INTO docs VALUES (-1, 'the last')")
            until("the last is fresh", lambda: connection.execute(HASH, (-1,)).fetchone())
            after = connection.execute(versions + " OFFSET 1").fetchall()
            report.at_most("2,000 rows touched: texts encoded", encoder.encoded - encoded - 1, 0)
            report.at_most("2,000 rows touched: target rows rewritten", len(set(after) - set(before)), 0)
