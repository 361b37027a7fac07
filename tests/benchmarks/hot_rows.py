"""Few rows that are edited all the time: how soon all is settled after the last edit."""

import time

from tests.benchmarks.harness import (
    Report,
    await_fresh,
    await_queue,
    database,
    median,
    real_encoder,
    worker_process,
)
from tests.benchmarks.writers import updates_per_second

ROWS = 200
WRONG = """
SELECT count(*) FROM docs d LEFT JOIN docs_embedding t USING (id)
 WHERE t.content_hash IS DISTINCT FROM substring(sha256(convert_to(d.body, 'UTF8')) FROM 1 FOR 16)
"""


def hot_rows(report: Report, quick: bool) -> None:
    """Four writers, with the model on all cores."""
    seconds, turns = (4, 1) if quick else (20, 3)
    real_encoder()
    with database() as (url, connection):
        connection.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, %s) g", (ROWS,))
        with worker_process(url):
            await_fresh(connection)
            settled, rates = [], []
            for _ in range(turns):
                rates.append(updates_per_second(url, "docs", 4, seconds, ROWS))
                began = time.perf_counter()
                await_queue(connection)
                settled.append(time.perf_counter() - began)
                wrong = connection.execute(WRONG).fetchone()
                assert wrong == (0,), f"{wrong} of {ROWS} rows are wrong though nothing is queued"
    report.add(f"edits of {ROWS} rows by 4 writers", median(rates), "/s")
    report.at_most(f"settled after the last of {seconds} s of such edits", median(settled), 2, "s")
