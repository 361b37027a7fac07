"""How fast it is seen how all is: every row compared by `verify`, and the status of a large table."""

import time

from freshvec.db import connect
from freshvec.scans.verify import verify as compare
from tests.benchmarks.harness import Report, WideNullEncoder, cpu_seconds, database, median
from tests.support import backfill, bound_sync, settings_for, sync_of

_WORDS = "repeat(md5(g::text), 7)"  # 224 characters, of which 200 are taken
FILL = f"INSERT INTO docs SELECT g, left({_WORDS}, 200) FROM generate_series(1, %s) g"
EMBED = """
INSERT INTO docs_embedding (id, embedding, content_hash, fingerprint, fence)
SELECT id, array_fill(1, ARRAY[384])::vector, substring(sha256(convert_to(body, 'UTF8')) FROM 1 FOR 16), %s, 1
  FROM docs
"""
COUNTED = """
UPDATE freshvec.sync SET backfill_done = true, rows_embedded = %(rows)s, rows_walked = %(rows)s,
       walk_rows = %(rows)s,
       proven_at = now()
"""


def verify(report: Report, quick: bool) -> None:
    """Rows of 200 characters, every one fresh, at 384 dimensions."""
    rows, turns = (5000, 1) if quick else (200_000, 3)
    encoder = WideNullEncoder()
    with database() as (url, connection):
        settings = settings_for(url, sync_of("docs"))
        backfill(settings, encoder)  # of nothing: it makes the target
        connection.execute("ALTER TABLE docs DISABLE TRIGGER ALL")
        connection.execute(FILL, (rows,))
        connection.execute(EMBED, (encoder.fingerprint,))
        connection.execute("VACUUM ANALYZE docs, docs_embedding")
        rates, busy = [], []
        with connect(settings.database.url, "benchmark") as looking:
            bound = bound_sync(looking, settings, encoder)
            for _ in range(turns):
                began, cpu = time.perf_counter(), cpu_seconds(looking.info.backend_pid) + time.process_time()
                found = compare(looking, bound)
                rates.append(rows / (time.perf_counter() - began))
                busy.append(cpu_seconds(looking.info.backend_pid) + time.process_time() - cpu)
                assert found.is_fresh, found
                assert found.rows == rows, found
    report.add("verify, the same by CPU seconds of client and server", rows / median(busy), "rows/s")
    report.at_least("verify, texts of 200 characters", median(rates), 300_000, "rows/s")


def status(report: Report, quick: bool) -> None:
    """`SELECT * FROM freshvec.status` with a full source, its counts kept, and a backlog."""
    rows, turns = (5000, 3) if quick else (2_000_000, 20)
    with database() as (url, connection):
        settings = settings_for(url, sync_of("docs"))
        backfill(settings, WideNullEncoder())
        connection.execute("ALTER TABLE docs DISABLE TRIGGER ALL")
        connection.execute(FILL, (rows,))
        connection.execute("VACUUM ANALYZE docs")
        connection.execute(COUNTED, {"rows": rows})
        for backlog in (0, rows):
            connection.execute(
                "INSERT INTO freshvec.queue_docs (bulk, k1) SELECT true, id FROM docs LIMIT %s", (backlog,)
            )
            seconds = []
            for _ in range(turns):
                began = time.perf_counter()
                connection.execute("SELECT * FROM freshvec.status").fetchall()
                seconds.append(time.perf_counter() - began)
            report.at_most(f"status of {rows:,} rows, {backlog:,} queued", median(seconds) * 1000, 50, "ms")


def where(report: Report, quick: bool) -> None:
    """A condition that selects one row in a hundred: only those are kept in the target."""
    rows = 5000 if quick else 1_000_000
    with database() as (url, connection):
        wanted = "is_wanted boolean GENERATED ALWAYS AS (id % 100 = 0) STORED"
        connection.execute(f"ALTER TABLE docs ADD COLUMN {wanted}")
        connection.execute(FILL, (rows,))
        began = time.perf_counter()
        backfill(settings_for(url, sync_of("docs", where="is_wanted")), WideNullEncoder())
        seconds = time.perf_counter() - began
        (kept,) = connection.execute("SELECT count(*) FROM docs_embedding").fetchone() or (0,)
    report.add(f"backfill of the 1% of {rows:,} rows that a condition selects", seconds, "s")
    report.at_most("rows in the target of a condition that selects 1%", kept / rows * 100, 1.1, "%")
    report.at_least("the same, at the least", kept / rows * 100, 1.0, "%")
