"""Commit to visible: idle, beside bursts and walks, beside an index; and statements that change nothing."""

import hashlib
import time
from collections.abc import Callable

import psycopg

from freshvec.encoding.batching import plan_batches
from freshvec.encoding.encoder import OnnxEncoder
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
    worker_process,
)
from tests.support import Connection, NullEncoder, running, settings_for, sync_of, until, wait_fresh

BULK_WAITS = "SELECT EXISTS (SELECT FROM freshvec.queue_docs WHERE bulk)"
LOOK_SECONDS = 0.0005  # between looks whether an edit is visible: without a rest they take one of two cores
REST_SECONDS = 0.004  # of the encoder between two edits, each of which waits for the one before
HASH = "SELECT content_hash FROM docs_embedding WHERE id = %s"


def edit(writing: Connection, reading: Connection, row: int, text: str) -> float:
    """Milliseconds from the commit's return until another session sees the embedding of exactly this text."""
    wanted = hashlib.sha256(text.encode()).digest()[:16]
    writing.execute("UPDATE docs SET body = %s WHERE id = %s", (text, row))
    committed = time.perf_counter()
    while (found := reading.execute(HASH, (row,)).fetchone()) is None or found[0] != wanted:
        if time.perf_counter() - committed > 60:
            raise AssertionError(f"row {row} is not fresh after a minute")
        time.sleep(LOOK_SECONDS)
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
    count, burst, turns = (20, 200, 1) if quick else (200, 2000, 3)
    encoder = real_encoder()
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
            edits(url, first, 5, "warm")
            _idle(report, encoder, url, first, count, turns)
            _burst(report, connection, url, first, count, burst, turns)
            _encoded(report, encoder, connection, burst, turns)
            _backfill(report, connection, url, first, count, burst, turns)


def _idle(report: Report, encoder: OnnxEncoder, url: str, first: int, count: int, turns: int) -> None:
    """Beside encoding such a text alone, in turns: in the rhythm of the edits, since whatever else runs in
    between takes the processor's caches, and one after the other."""
    close, alone, p50, p99 = [], [], [], []
    for turn in range(turns):
        close.append(median([encode_alone(encoder, f"close {turn} number {n}") for n in range(50)]))
        alone.append(median([encode_alone(encoder, f"{turn} number {n}", REST_SECONDS) for n in range(50)]))
        made = edits(url, first, count, f"idle {turn}")
        p50.append(median(made))
        p99.append(percentile(made, 0.99))
    report.add("encoding such a text alone, one after the other, p50", median(close), "ms")
    report.add("encoding such a text alone, in the rhythm of edits, p50", median(alone), "ms")
    report.add("commit to visible, idle, p50", median(p50), "ms")
    report.add("commit to visible, idle, p99", median(p99), "ms")
    beyond = [whole - part for whole, part in zip(p50, alone, strict=True)]
    report.at_most("commit to visible beyond encoding, idle, p50", median(beyond), 2.5, "ms")
    beyond = [whole - part for whole, part in zip(p99, alone, strict=True)]
    report.at_most("commit to visible beyond encoding, idle, p99", median(beyond), 7, "ms")


def encode_alone(encoder: OnnxEncoder, text: str, rest: float = 0.0) -> float:
    """Milliseconds, after so many seconds of rest."""
    time.sleep(rest)
    began = time.perf_counter()
    encoder.encode(encoder.tokenize([f"encode {text}, a short text"]))
    return (time.perf_counter() - began) * 1000


def _burst(
    report: Report, connection: Connection, url: str, first: int, count: int, burst: int, turns: int
) -> None:
    """Single edits while one statement changes many rows."""
    p99, made = [], 0
    for turn in range(turns):
        connection.execute("UPDATE docs SET body = body || %s WHERE id <= %s", (f" in burst {turn}", burst))
        during = edits_while(url, first, count, f"burst {turn}", holds(BULK_WAITS))
        await_queue(connection)
        p99.append(percentile(during, 0.99))
        made += len(during)
    report.add("edits made during the bursts", made, "")
    report.at_most(f"commit to visible while {burst:,} rows changed, p99", median(p99), 150, "ms")


def _encoded(report: Report, encoder: OnnxEncoder, connection: Connection, burst: int, turns: int) -> None:
    """A burst against the encoding of its texts alone."""
    ratios = []
    for turn in range(turns):
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


def _backfill(
    report: Report, connection: Connection, url: str, first: int, count: int, unnoticed: int, turns: int
) -> None:
    """Single edits while a walk embeds what has changed unnoticed."""
    p99, made = [], 0
    walks = "SELECT NOT backfill_done FROM freshvec.sync"
    for turn in range(turns):
        with connection.transaction():
            changed = f" unnoticed {turn}"
            connection.execute("UPDATE docs SET body = body || %s WHERE id <= %s", (changed, unnoticed))
            connection.execute("DELETE FROM freshvec.queue_docs")
            connection.execute("INSERT INTO freshvec.rescan (sync, reason) VALUES ('docs', 'benchmark')")
        until("the walk has begun", lambda: connection.execute(walks).fetchone() == (True,))
        during = edits_while(url, first, count, f"backfill {turn}", holds(walks))
        until("the walk has ended", lambda: connection.execute(walks).fetchone() == (False,))
        p99.append(percentile(during, 0.99))
        made += len(during)
    report.add("edits made during the backfills", made, "")
    report.at_most("commit to visible while a backfill runs, p99", median(p99), 100, "ms")


def indexed(report: Report, quick: bool) -> None:
    """Single edits while many rows change, with an HNSW index on the target, which makes each write dear."""
    rows, bulk, count, turns = (1000, 500, 50, 1) if quick else (20_000, 5000, 1000, 3)
    real_encoder()
    some = one_line_texts(2000)
    with database(settings={"maintenance_work_mem": "1GB"}) as (url, connection):
        fill(connection, [f"{some[n % len(some)]} {n}" for n in range(rows)])
        first = rows + 1000
        connection.execute(
            "INSERT INTO docs SELECT g, 'a row to edit' FROM generate_series(%s::int, %s::int) g",
            (first, first + count),
        )
        with worker_process(url):
            await_fresh(connection)
            connection.execute("CREATE INDEX ON docs_embedding USING hnsw (embedding vector_cosine_ops)")
            p99, made = [], 0
            for turn in range(turns):
                connection.execute("UPDATE docs SET body = body || %s WHERE id <= %s", (f" {turn}", bulk))
                during = edits_while(url, first, count, f"bulk {turn}", holds(BULK_WAITS))
                await_queue(connection)
                p99.append(percentile(during, 0.99))
                made += len(during)
    report.add(f"edits made while {bulk:,} rows changed, HNSW on {rows:,}", made, "")
    report.at_most(f"commit to visible while {bulk:,} rows change, HNSW, p99", median(p99), 1000, "ms")


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
