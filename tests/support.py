"""What tests share: waiting for conditions, an encoder without a model, workers in threads and processes."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from freshvec.config import Settings
from freshvec.encoding.loading import Models
from freshvec.records import Encoder, Model, Tokens, Vector
from freshvec.schema.plan import plan
from freshvec.source.bound import BoundSync
from freshvec.worker.keeper import Keeper
from freshvec.worker.worker import Worker

REPOSITORY = Path(__file__).parents[1]
MODEL = "all-MiniLM-L6-v2"
NEEDS_EXPORT = "torch and onnx are not installed, which export needs: `make test` installs them"
Connection = psycopg.Connection[tuple[Any, ...]]


def until(what: str, condition: Callable[[], object], seconds: float = 90.0) -> None:
    """Wait for a condition; fail with its name when the deadline passes.

    Looking takes at most a third of the time, so that it does not keep from working what it waits for.
    """
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if condition():
            return
        looked = time.monotonic()
        if looked > deadline:
            raise AssertionError(f"within {seconds} s it did not come about that {what}")
        time.sleep(min(max(0.005, 2 * (looked - began)), 0.25))


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class NullEncoder:
    """No model: a vector derived from the whole text's hash, after as many seconds per batch as asked for.

    It lets tests of everything but the model run at full rate. It fails on texts that contain `refuse`. Of a
    text a worker first reads 100 characters per token of `max_tokens`, and then all where that does not fill
    the model; 1,000 characters fill this one.
    """

    dimension = 8
    fingerprint = b"null encoder 000"
    device = "cpu"
    precision = "fp32"

    def __init__(
        self, seconds_a_batch: float = 0.0, refuse: str | None = None, max_tokens: int = 256
    ) -> None:
        self.seconds_a_batch = seconds_a_batch
        self.refuse = refuse
        self.max_tokens = max_tokens
        self.encoded = 0
        self._texts: dict[bytes, str] = {}

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        tokens = []
        for text in texts:
            digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype=np.int64)
            if self.refuse is not None:
                self._texts[digest.tobytes()] = text
            tokens.append(Tokens(digest, len(text) > 1000))
        return tokens

    def tokenize_queries(self, texts: list[str]) -> list[Tokens]:
        return self.tokenize(texts)

    def rebuild(self) -> None:
        """Nothing to begin anew."""

    def encode(self, batch: list[Tokens]) -> Vector:
        if self.seconds_a_batch:
            time.sleep(self.seconds_a_batch)
        if any(self._is_refused(tokens) for tokens in batch):
            raise RuntimeError("the null encoder refuses this text")
        self.encoded += len(batch)
        raw = np.stack([np.frombuffer(tokens.ids.tobytes(), dtype=np.uint8)[:8] for tokens in batch])
        vectors = raw.astype(np.float32) + 1
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)

    def _is_refused(self, tokens: Tokens) -> bool:
        return self.refuse is not None and self.refuse in self._texts.get(tokens.ids.tobytes(), "")


def models_in(folder: Path, **daemon: Any) -> Models:
    """The models exported to a folder; `daemon` overrides the daemon's defaults."""
    return Models(Settings.model_validate({"daemon": {"models_dir": folder, **daemon}}))


def settings_for(url: str, *syncs: dict[str, Any], **daemon: Any) -> Settings:
    """Settings with the test's database; `daemon` overrides the daemon's defaults."""
    return Settings.model_validate(
        {"database": {"url": url}, "daemon": {"sweep_seconds": 5.0, **daemon}, "sync": list(syncs)}
    )


def sync_of(table: str, name: str = "docs", **more: Any) -> dict[str, Any]:
    """A sync's declaration; the text is column `body` unless said otherwise."""
    text = {} if "expression" in more or "columns" in more else {"columns": ["body"]}
    return {"name": name, "table": table, "model": MODEL, **text, **more}


@contextmanager
def running(
    settings: Settings, encoder: Encoder | Callable[[str], Encoder], *, once: bool = False
) -> Iterator[Worker]:
    """A worker in a thread of this process with the given encoder, or what gives one for each model; stopped
    at the end."""
    load = encoder if callable(encoder) else lambda _: encoder
    worker = Worker(settings, settings.sync, once=once, load=load, tick_seconds=0.2)
    raised: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="worker")
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(60)
        assert not thread.is_alive(), "the worker did not stop"
    if raised:
        raise raised[0]


def wait_fresh(worker: Worker, seconds: float = 90.0) -> None:
    """Until every sync of the worker has nothing left to do, changes that it has not heard of included."""

    def is_fresh(keeper: Keeper) -> bool:
        pipeline = keeper.pipeline
        return pipeline is not None and keeper.is_fresh and pipeline.reader.is_fresh()

    until("every row is fresh", lambda: all(is_fresh(keeper) for keeper in worker.keepers), seconds)


def backfill(settings: Settings, encoder: Encoder) -> Worker:
    """Run a one-time backfill in this process until it is done."""
    worker = Worker(settings, settings.sync, once=True, load=lambda _: encoder, tick_seconds=0.1)
    worker.run()
    return worker


def bound_sync(connection: Connection, settings: Settings, encoder: Encoder) -> BoundSync:
    """The first declared sync, bound as a worker with that encoder binds it."""
    model = Model(MODEL, encoder.dimension, encoder.max_tokens, encoder.fingerprint)
    return plan(connection, settings.sync[0], model).bound


def count(connection: Connection, rows: str) -> int:
    """How many rows a table has, or a table with a condition behind it."""
    (found,) = connection.execute(f"SELECT count(*) FROM {rows}").fetchone() or (0,)
    return int(found)


def exists(connection: Connection, relation: str) -> bool:
    return connection.execute("SELECT to_regclass(%s)", (relation,)).fetchone() != (None,)


def content_hash(text: str) -> bytes:
    """The hash that a target keeps of a row's text."""
    return hashlib.sha256(text.encode()).digest()[:16]


def write_config(path: Path, settings_toml: str) -> Path:
    path.write_text(settings_toml, encoding="utf-8")
    return path


def config_toml(url: str, models_dir: Path, syncs: str, daemon: str = "") -> str:
    """A freshvec.toml for worker processes."""
    return (
        f'[database]\nurl = "{url}"\n[daemon]\nmodels_dir = "{models_dir}"\nsweep_seconds = 5.0\n'
        f"commit_every_seconds = 0.5\n{daemon}\n{syncs}\n"
    )


DOCS_SYNC = f'[[sync]]\nname = "docs"\ntable = "docs"\ncolumns = ["body"]\nmodel = "{MODEL}"\n'


class WorkerProcess:
    """A `freshvec` process of the real program, its output kept in a file. `python` says what is run, and
    `prefix` by what."""

    def __init__(
        self,
        config: Path,
        *arguments: str,
        log: Path,
        env: dict[str, str] | None = None,
        python: tuple[str, ...] = ("-m", "freshvec"),
        prefix: tuple[str, ...] = (),
    ) -> None:
        self.log = log
        self._file = log.open("ab")
        self.process = subprocess.Popen(
            [*prefix, sys.executable, *python, *(arguments or ("run",)), "--config", str(config)],
            stdout=self._file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
        )

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL, and reap."""
        self.process.kill()
        self.process.wait(60)

    def terminate(self) -> None:
        """SIGTERM, and not wait for what it does."""
        self.process.send_signal(signal.SIGTERM)

    def stop(self, seconds: float = 60.0) -> int:
        """SIGTERM; the exit code."""
        if self.is_running:
            self.terminate()
        return self.process.wait(seconds)

    def close(self) -> None:
        if self.is_running:
            self.kill()
        self._file.close()


def freshvec(
    *arguments: str, env: dict[str, str] | None = None, timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """Run the real command line to its end."""
    return subprocess.run(
        [sys.executable, "-m", "freshvec", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **(env or {})},
        check=False,
    )
