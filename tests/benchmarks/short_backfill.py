"""What a user sees of a short backfill: from the start of the process to the last vector, beside others.

CPU seconds, the server's apart, stand beside wall seconds: a busy machine changes them least.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from freshvec.encoding import openvino_session, quick_tokens
from tests.benchmarks.harness import (
    MODELS,
    Report,
    await_fresh,
    await_target,
    cpu_seconds,
    database,
    fill,
    median,
    one_line_texts,
    texts,
    worker_process,
)
from tests.exports import exported
from tests.support import MODEL, REPOSITORY

_ONCE_LOADED = {"fp32": 1.05, "bf16": 1.25}  # times as long as encoding alone

# In a process of its own: texts from a file, the model as its library loads it by default.
_THEIRS = """
import json, sys
from freshvec.bench.baselines import open_baseline
from freshvec.models import catalogue
rows = json.load(open(sys.argv[1]))
open_baseline("sentence-transformers", catalogue.find(sys.argv[2]), "cpu")(rows)
"""
_ALONE = """
import json, sys, time
from pathlib import Path
from freshvec.bench.throughput import one_pass
from tests.support import models_in
rows = json.load(open(sys.argv[1]))
encoder = models_in(Path(sys.argv[3]), device="cpu", precision=sys.argv[4]).encoder(sys.argv[2])
encoder.encode(encoder.tokenize(rows[:8]))
before, began = time.process_time(), time.perf_counter()
one_pass(encoder, rows, int(sys.argv[5]))
print(time.perf_counter() - began, time.process_time() - before)
"""


def short(report: Report, quick: bool) -> None:
    """In turns: sentence-transformers from its start, the encoder alone once loaded, a backfill from its
    start. What a first start tries out is known by then: the encoder alone has tried it."""
    exported()
    rounds = 1 if quick else 3
    precisions = ["fp32"] + ["bf16"] * (openvino_session.refusal() is None)
    print(f"tokens by {quick_tokens.installed() or 'tokenizers'}")
    for name, rows, bars in (
        ("docstrings", texts(300 if quick else 6000), {"fp32": 2.0, "bf16": 4.5}),
        ("one-line texts", one_line_texts(600 if quick else 10_000), {"fp32": 1.5, "bf16": 2.0}),
    ):
        taken: dict[str, list[tuple[float, float]]] = {}
        for _ in range(rounds):
            taken.setdefault("theirs", []).append(_theirs(rows))
            for each in precisions:
                taken.setdefault(f"alone {each}", []).append(_alone(rows, each))
                whole, loaded = _ours(rows, each)
                taken.setdefault(each, []).append(whole)
                taken.setdefault(f"loaded {each}", []).append(loaded)
        for each in precisions:
            wall, busy = _ratio(taken["theirs"], taken[each])
            what = f"{name}: backfill in {each}"
            report.add(f"{what}", len(rows) / median([one[0] for one in taken[each]]), "rows/s")
            report.at_least(
                f"{what} against sentence-transformers, from process start", wall, bars[each], "×"
            )
            report.add(f"{what} against sentence-transformers, CPU of both processes", busy, "×")
            wall, busy = _ratio(taken[each], taken[f"alone {each}"])
            report.add(f"{what}, start included, against its encoding alone", wall, "×")
            report.add(f"{what}, start included, against its encoding alone, CPU", busy, "×")
            wall, busy = _ratio(taken[f"loaded {each}"], taken[f"alone {each}"])
            report.at_most(f"{what}, once loaded, against its encoding alone", wall, _ONCE_LOADED[each], "×")
            report.add(f"{what}, once loaded, against its encoding alone, CPU", busy, "×")


def _ratio(a: list[tuple[float, float]], b: list[tuple[float, float]]) -> tuple[float, float]:
    """Medians of the rounds: wall seconds, CPU seconds."""
    pairs = list(zip(a, b, strict=True))
    return median([x[0] / y[0] for x, y in pairs]), median([x[1] / y[1] for x, y in pairs])


def _theirs(rows: list[str]) -> tuple[float, float]:
    with _file(rows) as path:
        began = time.perf_counter()
        with subprocess.Popen([sys.executable, "-c", _THEIRS, path, MODEL], cwd=REPOSITORY) as process:
            busy = _cpu_until_its_end(process)
        return time.perf_counter() - began, busy


def _alone(rows: list[str], precision: str) -> tuple[float, float]:
    size = "2048" if precision == "bf16" else "1024"
    with _file(rows) as path:
        command = [sys.executable, "-c", _ALONE, path, MODEL, str(MODELS), precision, size]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    wall, busy = map(float, done.stdout.split())
    return wall, busy


def _ours(rows: list[str], precision: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Wall and CPU seconds from the start of the process, and from when the model is loaded."""
    with database() as (url, connection):
        fill(connection, rows)
        began = time.perf_counter()
        with worker_process(url, daemon=f'device = "cpu"\nprecision = "{precision}"') as worker:
            await_target(connection)
            loaded, before = time.perf_counter(), cpu_seconds(worker.pid)
            await_fresh(connection, 600)
            ended, busy = time.perf_counter(), cpu_seconds(worker.pid)
            return (ended - began, busy), (ended - loaded, busy - before)


def _cpu_until_its_end(process: "subprocess.Popen[bytes]") -> float:
    busy = 0.0
    while process.poll() is None:
        busy = max(busy, cpu_seconds(process.pid))
        time.sleep(0.02)
    return busy


@contextmanager
def _file(rows: list[str]) -> Iterator[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as made:
        json.dump(rows, made)
        made.flush()
        yield made.name
