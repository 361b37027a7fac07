"""What a worker costs while it does nothing: CPU, memory; and how soon it encodes after its start."""

import time

from tests.benchmarks.harness import Report, cpu_seconds, database, real_encoder, resident_mib, worker_process
from tests.support import REPOSITORY, until

_WITHOUT_MODEL = """
import sys
sys.path.insert(0, %r)
from tests.support import NullEncoder, settings_for, sync_of
from embedsync.service import Service
settings = settings_for(%r, sync_of("docs"), sweep_seconds=30.0)
service = Service(settings, settings.sync, load=lambda _, __: NullEncoder())
service.handle_signals()
assert "torch" not in sys.modules and "onnxruntime" not in sys.modules
service.run()
"""
FRESH = "SELECT count(*) FROM docs_embedding WHERE embedding IS NOT NULL"


def idle(report: Report, quick: bool) -> None:
    """A worker process with and without the model."""
    real_encoder()
    seconds = 3 if quick else 20
    with database() as (url, connection):
        connection.execute("INSERT INTO docs VALUES (1, 'one')")
        began = time.perf_counter()
        with worker_process(url) as worker:
            until("there is a target", lambda: connection.execute("SELECT to_regclass('docs_embedding')").fetchone() != (None,))
            until("the row is embedded", lambda: connection.execute(FRESH).fetchone() == (1,))
            report.at_most("start of the process to its first embedding", time.perf_counter() - began, 2, "s")
            time.sleep(6)  # the last figures of its activity are written
            before = cpu_seconds(worker.pid)
            time.sleep(seconds)
            report.at_most("CPU of an idle worker in 10 s", (cpu_seconds(worker.pid) - before) * 10 / seconds, 0.02, "s")
            report.at_most("resident memory with MiniLM", resident_mib(worker.pid), 350, "MiB")
        with worker_process(url, "-c", _WITHOUT_MODEL % (str(REPOSITORY), url)) as worker:
            until(
                "it has re-encoded the row",
                lambda: connection.execute("SELECT backfill_done FROM embedsync.sync").fetchone() == (True,),
            )
            time.sleep(1)
            report.at_most("resident memory without a model", resident_mib(worker.pid), 120, "MiB")
