"""Too little memory: batches are halved, the ceiling is kept, at last the process ends; no text is lost."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from freshvec.encoding.budget import BudgetMemory
from freshvec.encoding.encoder import OnnxEncoder
from freshvec.errors import DeviceError
from freshvec.records import OutOfMemoryError, Tokens, Vector
from freshvec.worker.worker import Worker
from tests.support import (
    DOCS_SYNC,
    MODEL,
    Connection,
    NullEncoder,
    WorkerProcess,
    config_toml,
    settings_for,
    sync_of,
    until,
    write_config,
)

# Encodes texts of the given lengths with a limit on its address space, as `ulimit -v` sets one. The batches
# planned first need four times what is left once the model is loaded and has encoded a little.
LIMITED = """
import json, resource, sys, time
from pathlib import Path
import numpy as np
from freshvec.config import Daemon, Settings
from freshvec.encoding.batching import plan_batches
from freshvec.encoding.budget import BatchBudget, BudgetMemory
from freshvec.encoding.dispatch import Dispatcher
from freshvec.encoding.loading import Models
from freshvec.records import Tokens, Urgency

models, folder = map(Path, sys.argv[1:3])
lengths, room = map(json.loads, sys.argv[3:])
settings = Settings(daemon=Daemon(models_dir=models, device="cpu", threads=1))
encoder = Models(settings).encoder("all-MiniLM-L6-v2")
tokens = [Tokens(np.arange(2000, 2000 + length, dtype=np.int64)) for length in lengths]
encoder.encode(tokens[:2])
dispatcher = Dispatcher(encoder, BatchBudget(64 * 256))
answers = {}
batches = plan_batches(lengths, dispatcher.budget.next_size)
first = dispatcher.budget.settled
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + room, resource.RLIM_INFINITY))
for batch in batches:
    done = lambda results, batch=batch: answers.update(zip(batch.indices, results))
    dispatcher.submit(Urgency.BACKFILL, [tokens[i] for i in batch.indices], batch.size, done)
while len(answers) < len(tokens):
    time.sleep(0.05)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
dispatcher.stop(5)
BudgetMemory(folder).keep("m", "cpu", dispatcher.budget)
np.save(folder / "vectors.npy", np.stack([answers[i] for i in range(len(tokens))]))
budget = dispatcher.budget
print(json.dumps({"first": first, "ceiling": budget.ceiling, "next": budget.next_size()}))
"""


def test_a_real_limit_halves_the_batch_and_loses_nothing(
    models_dir: Path, encoder: OnnxEncoder, tmp_path: Path
) -> None:
    lengths = [256] * 48 + [40] * 48
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(models_dir), str(tmp_path), json.dumps(lengths), str(60 * 2**20)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "out of memory with" in done.stderr
    assert found["ceiling"] is not None
    assert found["ceiling"] < found["first"] == 64 * 256
    assert found["next"] <= found["ceiling"]
    assert BudgetMemory(tmp_path).ceilings("m") == {"cpu": found["ceiling"]}
    vectors: Vector = np.load(tmp_path / "vectors.npy")
    for place in (0, 47, 48, 95):
        alone = encoder.encode([Tokens(np.arange(2000, 2000 + lengths[place], dtype=np.int64))])[0]
        assert np.abs(vectors[place] - alone).max() < 1e-5


class Full(NullEncoder):
    """A device that others fill after so many texts."""

    def __init__(self, room_for: int) -> None:
        super().__init__()
        self.room_for = room_for
        self.rebuilt = 0

    def rebuild(self) -> None:
        self.rebuilt += 1

    def encode(self, batch: list[Tokens]) -> Vector:
        if self.encoded + len(batch) > self.room_for:
            raise OutOfMemoryError("Failed to allocate memory for requested buffer of size 1")
        return super().encode(batch)


def embedded(docs: Connection) -> int:
    row = docs.execute("SELECT count(*) FROM docs_embedding WHERE embedding IS NOT NULL").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("once", [True, False])
def test_where_nothing_helps_the_service_ends_with_what_is_encoded_written(
    url: str, docs: Connection, once: bool
) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 1000) g")
    encoder = Full(room_for=600)
    settings = settings_for(url, sync_of("docs"), page_rows=100, batch_tokens=64)
    service = Worker(settings, settings.sync, once=once, load=lambda _: encoder, tick_seconds=0.1)
    with pytest.raises(DeviceError, match="batches in a row failed") as raised:
        service.run()
    assert "supervisor" in raised.value.remedy
    assert encoder.rebuilt >= 3
    assert embedded(docs) == encoder.encoded


# The real program on the real model; from some batch on onnxruntime raises what it raises when a GPU is full.
FILLING = """
import itertools, sys
import onnxruntime
from freshvec.cli.main import main

run, calls = onnxruntime.InferenceSession.run, itertools.count()

def full(*given, **named):
    if next(calls) >= 5:
        raise RuntimeError(
            "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running "
            "MatMul node. Name:'m' Status Message: "
            "/onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 "
            "void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) "
            "Failed to allocate memory for requested buffer of size 939524096"
        )
    return run(*given, **named)

onnxruntime.InferenceSession.run = full
main()
"""


def test_the_program_ends_with_one_clear_line_and_the_next_goes_on(
    url: str, docs: Connection, models_dir: Path, tmp_path: Path, workers: Callable[..., WorkerProcess]
) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text number ' || g FROM generate_series(1, 300) g")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / MODEL).symlink_to(models_dir / MODEL)  # what is learnt of its memory stays here
    toml = config_toml(url, tmp_path / "models", DOCS_SYNC, "batch_tokens = 128\npage_rows = 50")
    config = write_config(tmp_path / "freshvec.toml", toml)
    done = subprocess.run(
        [sys.executable, "-c", FILLING, "run", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "cannot encode on cpu in this process: 3 batches in a row failed" in last
    assert "buffer of size 939524096" in last
    assert 0 < embedded(docs) < 300
    workers(config)
    until("the next one has done the rest", lambda: embedded(docs) == 300, 60)
