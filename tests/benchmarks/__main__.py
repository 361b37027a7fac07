"""`python -m tests.benchmarks [name …] [--quick] [--json FILE]`: figures with the bars they are held to."""

import argparse
import sys
from pathlib import Path

from loguru import logger

from tests.benchmarks import (
    backfill,
    encoding,
    footprint,
    freshness,
    guests_locks,
    hot_rows,
    looks,
    many_syncs,
    memory,
    openvino_rate,
    queue_rate,
    queue_size,
    recall,
    sharing,
    short_backfill,
    start_up,
    statements,
    writers,
)
from tests.benchmarks.harness import Machine, Report, write_json

BENCHMARKS = {
    "overhead": backfill.overhead,
    "pages": backfill.pages,
    "scale": backfill.scale,
    "freshness": freshness.freshness,
    "indexed": freshness.indexed,
    "hot": hot_rows.hot_rows,
    "touch": freshness.touch,
    "idle": footprint.idle,
    "reference": encoding.reference,
    "start": start_up.start,
    "short": short_backfill.short,
    "openvino": openvino_rate.openvino,
    "memory": memory.memory,
    "writers": writers.writers,
    "commits": writers.slow_commits,
    "statements": statements.statements,
    "syncs": many_syncs.many_syncs,
    "locks": guests_locks.locks,
    "queue": queue_rate.queue,
    "size": queue_size.queue_size,
    "verify": looks.verify,
    "status": looks.status,
    "where": looks.where,
    "recall": recall.recall,
    "shares": sharing.shares,
    "takeovers": sharing.takeovers,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}; default all")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes: to see that it runs, not for figures"
    )
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    logger.remove()
    logger.add(sys.stderr, level="WARNING")  # of workers in this process
    report = Report()
    machine = Machine.here()
    processor = f"{machine.cores} cores of {machine.processor}"
    print(f"{machine.date}, {processor}, Python {machine.python}, {machine.packages}\n")
    print("| figure | measured | bar | |\n|---|---|---|---|")
    for name in arguments.names or BENCHMARKS:
        BENCHMARKS[name](report, arguments.quick)
    if arguments.json:
        write_json(arguments.json, report)
    return int(any(figure["verdict"] == "FAIL" for figure in report.figures))


if __name__ == "__main__":  # a tokenizer's process imports this module too
    sys.exit(main())
