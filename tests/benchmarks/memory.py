"""Memory of a worker process: after few rows and many, and over texts of wildly varying length."""

import random
import time

from tests.benchmarks.harness import (
    NULL_WORKER,
    Report,
    await_fresh,
    await_queue,
    database,
    fill,
    real_encoder,
    resident_mib,
    texts,
    worker_process,
)

MEGABYTE = 1_000_000


def memory(report: Report, quick: bool) -> None:
    _rows(report, quick)
    _lengths(report, quick)
    _many(report, quick)
    _one_long(report)


def _rows(report: Report, quick: bool) -> None:
    """Without a model, at full rate."""
    few, many = (10_000, 20_000) if quick else (10_000, 100_000)
    insert = """
        INSERT INTO docs
        SELECT g, repeat('text ' || g, 1 + g %% 50) FROM generate_series(%s::int, %s::int) g"""
    for width, wide in ((8, ()), (384, ("wide",))):
        with database() as (url, connection):
            connection.execute(insert, (1, few))
            with worker_process(url, *NULL_WORKER, url, *wide) as worker:
                await_fresh(connection)
                time.sleep(1)
                before = resident_mib(worker.pid)
                connection.execute(insert, (few + 1, many))
                await_queue(connection)
                time.sleep(1)
                after = resident_mib(worker.pid)
        report.add(f"resident memory after {few:,} rows, {width} dimensions", before, "MiB")
        report.at_most(f"after {many:,} rows / after {few:,}, {width} dimensions", after / before, 1.10)


def _lengths(report: Report, quick: bool) -> None:
    """With the model; every round has texts of all lengths to 1 MB, the same kind each time."""
    rounds, count = (3, 100) if quick else (8, 500)
    real_encoder()
    chance = random.Random(1)
    whole = "\n".join(texts(5000)) * 3
    resident = []
    with database() as (url, connection), worker_process(url) as worker:
        await_fresh(connection)
        for turn in range(rounds):
            rows = ["", "x" * MEGABYTE, whole[:MEGABYTE]]
            for _ in range(count - len(rows)):
                start = chance.randrange(len(whole) - MEGABYTE)
                rows.append(whole[start : start + int(MEGABYTE ** chance.random())])
            fill(connection, rows, turn * count + 1)
            await_queue(connection, 300)
            time.sleep(1)
            resident.append(resident_mib(worker.pid))
    report.add(f"resident memory after {count} texts of 0 to 1 MB", resident[0], "MiB")
    report.at_most(f"after {rounds * count:,} such texts / after {count}", resident[-1] / resident[0], 1.10)


def _many(report: Report, quick: bool) -> None:
    """With the model, over a million texts: nearly all of a few tokens, so that it ends; few are longer."""
    few, many = (1_000, 4_000) if quick else (100_000, 1_000_000)
    real_encoder()
    insert = """
        INSERT INTO docs
        SELECT g, repeat('text ' || g || ' ',
                         CASE WHEN random() < 0.002 THEN (300 * random())::int ELSE 1 END)
          FROM generate_series(%s::int, %s::int) g"""
    with database() as (url, connection), worker_process(url) as worker:
        await_fresh(connection)
        connection.execute(insert, (1, few))
        await_queue(connection, 3600)
        time.sleep(1)
        before = resident_mib(worker.pid)
        connection.execute(insert, (few + 1, many))
        await_queue(connection, 3600)
        time.sleep(1)
        after = resident_mib(worker.pid)
    report.add(f"resident memory after {few:,} short texts, with the model", before, "MiB")
    report.at_most(f"after {many:,} short texts / after {few:,}", after / before, 1.10)


def _one_long(report: Report) -> None:
    """A text of 10 MB: the model reads its first 256 tokens, and the worker little more."""
    real_encoder()
    whole = "\n".join(texts(5000))
    prose = (whole * (10 * MEGABYTE // len(whole) + 1))[: 10 * MEGABYTE]
    with database() as (url, connection), worker_process(url) as worker:
        await_fresh(connection)
        fill(connection, texts(1000), 1)
        await_queue(connection)
        time.sleep(1)
        before = resident_mib(worker.pid)
        fill(connection, [prose], 10_001)
        await_queue(connection)
        time.sleep(1)
        report.at_most(
            "resident memory after a text of 10 MB / before it", resident_mib(worker.pid) / before, 1.05
        )
        # Its beginning holds no token, so the tokenizer reads the whole text.
        fill(connection, [" " * 10 * MEGABYTE + "end"], 10_002)
        await_queue(connection)
        time.sleep(1)
        report.add("the same after one of 10 MB of blanks", resident_mib(worker.pid) / before, "x")
