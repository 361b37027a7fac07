"""What the tests share: waiting for conditions, an encoder without a model, workers and their processes."""

import hashlib
import os
import signal
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
from freshvec.errors import ModelError
from freshvec.export.export import PRECISIONS, export
from freshvec.records import Encoder, Tokens, Vector
from freshvec.worker.worker import Worker

REPOSITORY = Path(__file__).parents[1]
MODEL = "all-MiniLM-L6-v2"
Connection = psycopg.Connection[tuple[Any, ...]]


def until(what: str, condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait for a condition; fail with its name when the deadline passes."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"within {seconds} s it did not come about that {what}")
        time.sleep(0.005)


def exported() -> Path:
    """A folder with the real model in every precision: a checked earlier export, or a new one."""
    models = models_in(REPOSITORY / ".cache" / "models")
    try:
        kept = models.artefact(MODEL)
        for precision in PRECISIONS:
            kept.path(precision)
    except ModelError:
        export(models.card(MODEL), models.folder)
    return models.folder


class NullEncoder:
    """No model: a vector derived from the text's hash, after as many seconds per batch as asked for.

    It lets tests of everything but the model run at full rate. It fails on texts that contain `refuse`.
    """

    dimension = 8
    max_tokens = 256
    fingerprint = b"null encoder 000"
    device = "cpu"

    def __init__(self, seconds_a_batch: float = 0.0, refuse: str | None = None) -> None:
        self.seconds_a_batch = seconds_a_batch
        self.refuse = refuse
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
        if self.refuse is not None and any(
            self.refuse in self._texts.get(t.ids.tobytes(), "") for t in batch
        ):
            raise RuntimeError("the null encoder refuses this text")
        self.encoded += len(batch)
        raw = np.stack([np.frombuffer(text.ids.tobytes(), dtype=np.uint8)[:8] for text in batch])
        vectors = raw.astype(np.float32) + 1
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


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
def serving(settings: Settings, encoder: Encoder, *, once: bool = False) -> Iterator[Worker]:
    """A service in a thread of this process with the given encoder; stopped at the end."""
    service = Worker(settings, settings.sync, once=once, load=lambda _: encoder, tick_seconds=0.2)
    raised: list[BaseException] = []

    def run() -> None:
        try:
            service.run()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="service")
    thread.start()
    try:
        yield service
    finally:
        service.stop()
        thread.join(30)
        assert not thread.is_alive(), "the service did not stop"
    if raised:
        raise raised[0]


def wait_fresh(service: Worker, seconds: float = 60.0) -> None:
    """Until every sync of the service has nothing left to do."""
    until("every row is fresh", lambda: all(keeper.is_fresh for keeper in service.keepers), seconds)


def backfill(settings: Settings, encoder: Encoder) -> Worker:
    """Run a one-time backfill in this process until it is done."""
    service = Worker(settings, settings.sync, once=True, load=lambda _: encoder, tick_seconds=0.1)
    service.run()
    return service


def write_config(path: Path, settings_toml: str) -> Path:
    path.write_text(settings_toml, encoding="utf-8")
    return path


def config_toml(url: str, models_dir: Path, syncs: str, daemon: str = "") -> str:
    """An freshvec.toml for worker processes."""
    return (
        f'[database]\nurl = "{url}"\n[daemon]\nmodels_dir = "{models_dir}"\nsweep_seconds = 5.0\n'
        f"commit_every_seconds = 0.5\n{daemon}\n{syncs}\n"
    )


DOCS_SYNC = f'[[sync]]\nname = "docs"\ntable = "docs"\ncolumns = ["body"]\nmodel = "{MODEL}"\n'


class WorkerProcess:
    """An `freshvec` process of the real program, its output kept in a file."""

    def __init__(self, config: Path, *arguments: str, log: Path, env: dict[str, str] | None = None) -> None:
        self.log = log
        self._file = log.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "freshvec", *(arguments or ("run",)), "--config", str(config)],
            stdout=self._file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
        )

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """SIGKILL, and reap."""
        self.process.kill()
        self.process.wait(30)

    def stop(self, seconds: float = 30.0) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        self._file.close()


def freshvec(
    *arguments: str, env: dict[str, str] | None = None, timeout: float = 120
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
