"""What a process imports on its way to the first vector: only what it needs, since imports are most of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support import DOCS_SYNC, MODEL, REPOSITORY, config_toml

# What `freshvec run` and `backfill` do before their first vector, but for the database.
TO_THE_FIRST_VECTOR = f"""
import json, sys
from pathlib import Path
import freshvec.cli.main
from freshvec import config
from freshvec.cli.progress_view import ProgressView
from freshvec.encoding.loading import Models
from freshvec.worker.worker import Worker
settings = config.load(Path(sys.argv[1]))
ProgressView(settings.database.url)
encoder = Models(settings).encoder({MODEL!r})
assert encoder.encode(encoder.tokenize(["one text"])).shape == (1, encoder.dimension)
assert encoder.encode_query("another").shape == (encoder.dimension,)
print(json.dumps(sorted(sys.modules)))
"""
# Each takes from 5 ms to seconds. rich is for terminals and tables, the others for export, HTTP and bench.
NOT_NEEDED = {
    "rich",
    "typer.rich_utils",
    "markdown_it",
    "pygments",
    "starlette",
    "hypercorn",
    "prometheus_client",
    "onnx",
    "torch",
    "transformers",
    "huggingface_hub",
    "openvino",
    "pynvml",
    "freshvec.export.export",
    "freshvec.bench.measure",
    "freshvec.web.serve",
}


def test_nothing_is_imported_on_the_way_to_the_first_vector_that_it_does_not_take(
    models_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "freshvec.toml"
    fp32 = 'device = "cpu"\nprecision = "fp32"'
    path.write_text(config_toml("postgresql://nowhere", models_dir, DOCS_SYNC, fp32))
    command = [sys.executable, "-c", TO_THE_FIRST_VECTOR, str(path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    imported = set(json.loads(done.stdout.splitlines()[-1]))
    assert {"onnxruntime", "tokenizers", "psycopg"} <= imported
    assert not NOT_NEEDED & imported


def test_numpy_starts_no_threads_of_its_own_in_a_command() -> None:
    program = """
import os, sys
from freshvec.cli import entry
sys.argv[1:] = ["--version"]
try:
    entry.main()
except SystemExit:
    import numpy
    print(len(os.listdir("/proc/self/task")))
"""
    inherited = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, env=inherited)
    assert done.stdout.splitlines()[-1] == "1"
