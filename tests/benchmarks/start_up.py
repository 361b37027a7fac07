"""From the start of a process to its first vector: what takes how long.

The model's files are in the page cache. CPU seconds stand beside wall seconds: a busy machine changes them
least.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from tests.benchmarks.harness import Report, await_fresh, cpu_seconds, database, fill, median, worker_process
from tests.exports import exported
from tests.support import DOCS_SYNC, MODEL, REPOSITORY, Connection, config_toml, until

# What `freshvec backfill` does before its first vector, but for the database; then parts of it once more.
_PROCESS = """
import json, sys, time
laps = {}
def lap(name):
    global before
    now = time.perf_counter(), time.process_time()
    laps[name] = [now[0] - before[0], now[1] - before[1]]
    before = time.perf_counter(), time.process_time()
before = time.perf_counter(), 0.0
import freshvec.cli.main
lap("imports of the command line")
from freshvec.cli.progress_view import ProgressView
from freshvec.worker.worker import Worker
lap("imports of the worker")
from pathlib import Path
from freshvec import config
from freshvec.encoding import providers
from freshvec.encoding.loading import Models
settings = config.load(Path(sys.argv[1]))
lap("configuration")
providers.runtime()
lap("import of onnxruntime")
models = Models(settings)
encoder = models.encoder(sys.argv[2])
lap("model")
encoder.encode(encoder.tokenize(["one text"]))
lap("first text")
print("done", time.process_time(), flush=True)
from freshvec.encoding.session import OnnxSession
from freshvec.encoding.tokenizer import Tokenizer
artefact = models.artefact(sys.argv[2])
before = time.perf_counter(), time.process_time()
path = artefact.path("fp32")
lap("of the model: checksums")
Tokenizer(artefact.tokenizer_path, artefact.card.max_tokens)
lap("of the model: a tokenizer")
OnnxSession(path, artefact.pad_id)
lap("of the model: a session")
print(json.dumps(laps))
"""


def start(report: Report, quick: bool) -> None:
    """The parts of a start, medians of some processes; then a worker's, up to the vector in the table."""
    models = exported()
    turns = 2 if quick else 9
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "freshvec.toml")
        path.write_text(config_toml("postgresql://nowhere", models, DOCS_SYNC, 'device = "cpu"'))
        runs = [_process(path) for _ in range(turns)]
    for name in runs[0][2]:
        wall, busy = (median([laps[name][i] for _, _, laps in runs]) for i in (0, 1))
        report.add(f"start, {name}, wall", 1000 * wall, "ms")
        report.add(f"start, {name}, CPU", 1000 * busy, "ms")
    report.add("start of a process to its first vector, CPU", median([busy for _, busy, _ in runs]), "s")
    report.at_most("start of a process to its first vector", median([wall for wall, _, _ in runs]), 0.7, "s")
    wall, busy = _worker(turns)
    report.add("start of a worker to its first vector in a table, CPU", busy, "s")
    report.add("start of a worker to its first vector in a table", wall, "s")


def _process(config: Path) -> tuple[float, float, dict[str, list[float]]]:
    """Wall and CPU seconds to the first vector, and those of the parts."""
    command = [sys.executable, "-c", _PROCESS, str(config), MODEL]
    alone = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # as the command sets it
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, env=alone) as process:
        assert process.stdout is not None
        busy = process.stdout.readline().split()[1]
        wall = time.perf_counter() - began
        return wall, float(busy), json.loads(process.stdout.readline())


def _worker(turns: int) -> tuple[float, float]:
    """Wall and CPU seconds from the start of `freshvec run` to the vector of a row that has waited for it."""
    taken = []
    with database() as (url, connection):
        fill(connection, ["a text"])
        with worker_process(url, daemon='device = "cpu"'):
            await_fresh(connection)
        for number in range(2, 2 + turns):
            fill(connection, [f"text {number}"], number)
            wanted = f"SELECT 1 FROM docs_embedding WHERE id = {number} AND embedding IS NOT NULL"
            began = time.perf_counter()
            with worker_process(url, daemon='device = "cpu"') as worker:
                until("the row is embedded", partial(_has_one, connection, wanted))
                taken.append((time.perf_counter() - began, cpu_seconds(worker.pid)))
    return median([wall for wall, _ in taken]), median([busy for _, busy in taken])


def _has_one(connection: Connection, query: str) -> bool:
    return connection.execute(query).fetchone() is not None
