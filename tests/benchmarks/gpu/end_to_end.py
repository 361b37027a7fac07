"""The whole way on the GPU: a backfill of many rows on an embedded Postgres beside it, and live edits."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from freshvec.embedded import EmbeddedPostgres
from freshvec.worker.worker import Worker
from tests.benchmarks.freshness import edits
from tests.benchmarks.gpu.setting import Setting, median, sampled, seconds_of
from tests.benchmarks.gpu.speed import encode_all
from tests.benchmarks.harness import percentile
from tests.support import Connection, running, settings_for, until, wait_fresh


@contextmanager
def filled(texts: list[str]) -> Iterator[tuple[str, Connection]]:
    with EmbeddedPostgres(18) as server, psycopg.connect(server.url(), autocommit=True) as connection:
        for name, value in (("shared_buffers", "4GB"), ("max_wal_size", "16GB"), ("wal_compression", "off")):
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        server.run("pg_ctl", "-D", str(server.data), "-m", "fast", "-w", "stop")
        server.start()
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
            connection.execute("CREATE TABLE docs (id bigint PRIMARY KEY, body text)")
            with connection.cursor().copy("COPY docs FROM STDIN") as copy:
                for number, text in enumerate(texts, 1):
                    copy.write_row((number, text))
            connection.execute("VACUUM ANALYZE docs")
            yield server.url(), connection


def sync(setting: Setting) -> dict[str, Any]:
    return {
        "name": "docs",
        "table": "docs",
        "columns": ["body"],
        "model": setting.card.name,
        "target": {"type": "halfvec"},
    }


def backfill_rows(setting: Setting) -> dict[str, Any]:
    """Rows a second against encoding the same texts alone, tokenising included in both."""
    texts = setting.many(setting.rows)
    part = texts[:200_000]

    def alone() -> None:
        for start in range(0, len(part), 50_000):
            encode_all(setting.encoder, setting.encoder.tokenize(part[start : start + 50_000]), 131072)

    with filled(texts) as (url, connection):
        settings = settings_for(url, sync(setting))
        service = Worker(settings, settings.sync, once=True, load=lambda _: setting.encoder, tick_seconds=0.1)
        before = seconds_of(alone)
        with sampled() as sampler:
            seconds = seconds_of(service.run)
        after = seconds_of(alone)
        rows = connection.execute(
            "SELECT count(*) FROM docs_embedding WHERE embedding IS NOT NULL"
        ).fetchone()
        size = connection.execute("SELECT pg_total_relation_size('docs_embedding')").fetchone()
    (dispatcher,) = service.dispatchers.values()
    encoding_alone = len(part) / median([before, after])
    return {
        "rows": rows and rows[0],
        "seconds": seconds,
        "rows/s": len(texts) / seconds,
        "encoding alone, tokenising included, texts/s": encoding_alone,
        "against encoding alone": len(texts) / seconds / encoding_alone,
        "share of the time the encoder was busy": dispatcher.busy_seconds / seconds,
        "utilisation, %": median(sampler.utilisation) if sampler.utilisation else None,
        "utilisation over time, % every half second": sampler.utilisation,
        "batch size settled on": dispatcher.budget.settled,
        "target, MB": size and size[0] / 1e6,
    }


def live(setting: Setting) -> dict[str, Any]:
    """Commit to visible: idle, and while 20,000 rows change in one statement."""
    with filled(setting.many(2 * setting.count // 5)) as (url, connection):
        settings = settings_for(url, sync(setting))
        with running(settings, setting.encoder) as service:
            wait_fresh(service, 120)
            edits(url, 1, 20, "warm")
            idle = edits(url, 1, 200, "idle")
            connection.execute("UPDATE docs SET body = body || ' again' WHERE id > %s", (setting.count // 5,))
            began, during = time.perf_counter(), []
            while connection.execute(
                "SELECT EXISTS (SELECT FROM freshvec.queue_docs WHERE bulk)"
            ).fetchone() == (True,):
                during += edits(url, 1, 5, f"burst {len(during)}")
            burst = time.perf_counter() - began
            until(
                "all is fresh",
                lambda: connection.execute("SELECT count(*) FROM freshvec.queue_docs").fetchone() == (0,),
            )
    return {
        "idle p50, ms": median(idle),
        "idle p99, ms": percentile(idle, 0.99),
        "edits during the burst": len(during),
        "burst p99, ms": percentile(during, 0.99) if during else None,
        "burst of so many rows": setting.count // 5,
        "burst, s": burst,
    }
