"""What a worker costs while it does nothing: CPU, memory; and how soon it encodes after its start."""

import time
from pathlib import Path

from tests.benchmarks.harness import (
    NULL_WORKER,
    Report,
    await_fresh,
    cpu_seconds,
    database,
    real_encoder,
    resident_mib,
    worker_process,
)
from tests.support import until

EMBEDDED = "SELECT count(*) FROM docs_embedding WHERE embedding IS NOT NULL"


def has_mapped(pid: int, library: str) -> bool:
    """Whether a process has loaded any file of a library."""
    return f"/{library}/" in Path(f"/proc/{pid}/maps").read_text()


def idle(report: Report, quick: bool) -> None:
    """A worker process with and without the model."""
    real_encoder()
    seconds = 3 if quick else 20
    with database() as (url, connection):
        connection.execute("INSERT INTO docs VALUES (1, 'one')")
        began = time.perf_counter()
        with worker_process(url) as worker:
            until(
                "there is a target",
                lambda: connection.execute("SELECT to_regclass('docs_embedding')").fetchone() != (None,),
            )
            until("the row is embedded", lambda: connection.execute(EMBEDDED).fetchone() == (1,))
            report.at_most("start of the process to its first embedding", time.perf_counter() - began, 2, "s")
            time.sleep(6)  # the last figures of its activity are written
            before = cpu_seconds(worker.pid)
            time.sleep(seconds)
            report.at_most(
                "CPU of an idle worker in 10 s", (cpu_seconds(worker.pid) - before) * 10 / seconds, 0.02, "s"
            )
            report.at_most("resident memory with MiniLM", resident_mib(worker.pid), 350, "MiB")
            report.at_most("it has loaded torch", has_mapped(worker.pid, "torch"), 0)
    with database() as (url, connection):
        connection.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 1000) g")
        with worker_process(url, *NULL_WORKER, url, "wide") as worker:
            await_fresh(connection)
            time.sleep(1)
            report.at_most("resident memory without a model", resident_mib(worker.pid), 120, "MiB")
            loaded = has_mapped(worker.pid, "torch") + has_mapped(worker.pid, "onnxruntime")
            report.at_most("it has loaded torch or onnxruntime", loaded, 0)
