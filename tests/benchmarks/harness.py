"""What the benchmarks share: texts, the real model, a worker process, and a table of figures with bars."""

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import LiteralString

import numpy as np
import psycopg

from freshvec.embedded import EmbeddedPostgres
from freshvec.encoding.encoder import OnnxEncoder
from freshvec.models.artefact import Precision
from freshvec.records import Tokens, Vector
from freshvec.stdlib_texts import docstrings
from tests.exports import exported
from tests.support import DOCS_SYNC, MODEL, REPOSITORY, Connection, NullEncoder, config_toml, models_in, until

MODELS = REPOSITORY / ".cache" / "models"
NULL_WORKER = ("-m", "tests.benchmarks.null_worker")


@dataclass
class Report:
    """Figures, printed as they come."""

    figures: list[dict[str, object]] = field(default_factory=list)

    def add(self, name: str, value: float, unit: str, bar: str = "", passed: bool | None = None) -> None:
        shown = "" if passed is None else ("pass" if passed else "FAIL")
        self.figures.append({"name": name, "value": value, "unit": unit, "bar": bar, "verdict": shown})
        print(f"| {name} | {value:.4g} {unit} | {bar} | {shown} |", flush=True)

    def at_most(self, name: str, value: float, bar: float, unit: str = "") -> None:
        self.add(name, value, unit, f"≤ {bar:g}", value <= bar)

    def at_least(self, name: str, value: float, bar: float, unit: str = "") -> None:
        self.add(name, value, unit, f"≥ {bar:g}", value >= bar)


@dataclass(frozen=True)
class Machine:
    """Where figures were measured."""

    date: str
    processor: str
    cores: int
    python: str
    packages: dict[str, str]

    @classmethod
    def here(cls) -> "Machine":
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(
            (line.split(":")[1].strip() for line in lines if line.startswith("model name")),
            platform.machine(),
        )
        packages = {
            name: version(name)
            for name in ("onnxruntime", "torch", "sentence-transformers", "psycopg", "tokenizers")
        }
        return cls(
            datetime.now(UTC).strftime("%Y-%m-%d"),
            processor,
            len(os.sched_getaffinity(0)),
            platform.python_version(),
            packages,
        )

    def json(self) -> dict[str, object]:
        return asdict(self)


def texts(count: int) -> list[str]:
    """Docstrings of the standard library, evenly chosen, repeated with a number where there are too few."""
    every = [f"{name}\n{body}" for name, body in docstrings()]
    if count <= len(every):
        return every[:: len(every) // count][:count]
    return [every[i % len(every)] + f" {i // len(every)}" * (i >= len(every)) for i in range(count)]


def one_line_texts(count: int) -> list[str]:
    """The first sentences of the same docstrings."""
    every = [body.strip().split("\n", 1)[0] for _, body in docstrings()]
    return every[:: max(1, len(every) // count)][:count]


def real_encoder(precision: Precision = "fp32") -> OnnxEncoder:
    return models_in(exported(), device="cpu", precision=precision).encoder(MODEL)


class WideNullEncoder(NullEncoder):
    """No model, vectors of a real size."""

    dimension = 384
    fingerprint = b"wide null encode"

    def encode(self, batch: list[Tokens]) -> Vector:
        self.encoded += len(batch)
        return np.ones((len(batch), self.dimension), dtype=np.float32)


@contextmanager
def server(
    version: int = 18, settings: dict[str, str] | None = None
) -> Iterator[tuple[EmbeddedPostgres, Connection]]:
    """A server of its own with an empty table `docs`, started with these settings."""
    with (
        EmbeddedPostgres(version, None, **(settings or {})) as started,
        psycopg.connect(started.url(), autocommit=True) as connection,
    ):
        connection.execute("CREATE EXTENSION vector")
        connection.execute("CREATE TABLE docs (id bigint PRIMARY KEY, body text)")
        yield started, connection


@contextmanager
def database(version: int = 18, settings: dict[str, str] | None = None) -> Iterator[tuple[str, Connection]]:
    """The URL of such a server."""
    with server(version, settings) as (started, connection):
        yield started.url(), connection


def fill(connection: Connection, rows: list[str], first: int = 1) -> None:
    with connection.cursor().copy("COPY docs FROM STDIN") as copy:
        for number, text in enumerate(rows, first):
            copy.write_row((number, text.replace("\0", "")))
    connection.execute("ANALYZE docs")


@contextmanager
def worker_process(
    url: str, *command: str, daemon: str = "", may_end: bool = False
) -> Iterator["subprocess.Popen[bytes]"]:
    """`freshvec run`, or another command, in a process of its own; `daemon` are lines of its configuration.

    Raises if it ended by itself, unless it may.
    """
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("w+b") as log:
        # The model, without what earlier runs learnt of its speed: every run begins alike.
        models = Path(folder, "models")
        models.mkdir()
        (models / MODEL).symlink_to(MODELS / MODEL)
        if (MODELS / "trials.json").exists():  # what was tried of this machine: a first start takes seconds
            shutil.copy(MODELS / "trials.json", models)
        config = Path(folder, "freshvec.toml")
        config.write_text(config_toml(url, models, DOCS_SYNC, daemon))
        arguments = list(command) or ["-m", "freshvec", "run", "--config", str(config)]
        process = subprocess.Popen([sys.executable, *arguments], stderr=log, cwd=REPOSITORY)
        try:
            yield process
            if process.poll() is not None and not may_end:
                raise AssertionError(f"the worker ended by itself with {process.returncode}")
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace")[-4000:])
            raise
        finally:
            process.terminate()
            process.wait(30)


def await_target(connection: Connection, seconds: float = 300) -> None:
    """Until the worker has made the target, which follows the loading of its model."""
    _await(connection, "SELECT to_regclass('docs_embedding') IS NOT NULL", seconds)


def await_fresh(connection: Connection, seconds: float = 300) -> None:
    """Until the worker has made its tables and every row is embedded."""
    await_target(connection, seconds)
    fresh = "SELECT backfill_done AND NOT EXISTS (SELECT FROM freshvec.queue_docs) FROM freshvec.sync"
    _await(connection, fresh, seconds)


def _await(connection: Connection, asked: LiteralString, seconds: float) -> None:
    """It looks seldom, and at little: what that costs the two cores is not the worker's."""
    deadline = time.monotonic() + seconds
    while connection.execute(asked).fetchone() != (True,):
        assert time.monotonic() < deadline, asked
        time.sleep(0.05)


def await_queue(connection: Connection, seconds: float = 300) -> None:
    """Until every change is written: its entry leaves the queue in the same transaction."""
    waiting = "SELECT EXISTS (SELECT FROM freshvec.queue_docs)"
    until("the queue is empty", lambda: connection.execute(waiting).fetchone() == (False,), seconds)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def median(values: list[float]) -> float:
    return statistics.median(values)


def resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def write_json(path: Path, report: Report) -> None:
    path.write_text(
        json.dumps({"machine": Machine.here().json(), "figures": report.figures}, indent=2) + "\n"
    )
