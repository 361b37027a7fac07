"""The endpoint as its user runs it: alone, and as a part of the worker."""

import json
import os
import signal
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import (
    DOCS_SYNC,
    MODEL,
    Connection,
    WorkerProcess,
    config_toml,
    free_port,
    freshvec,
    until,
    write_config,
)


@pytest.fixture
def config(url: str, docs: Connection, models_dir: Path, tmp_path: Path) -> Path:
    docs.execute("INSERT INTO docs VALUES (1, 'How to bake bread'), (2, 'Tuning a guitar')")
    return write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC))


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_port()}"


IS_FRESH = "SELECT freshvec.is_fresh('docs', '2')"


def embedding(address: str, text: str) -> list[float]:
    body = json.dumps({"input": text, "model": MODEL}).encode()
    request = urllib.request.Request(
        f"http://{address}/v1/embeddings", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        vector: list[float] = json.load(answer)["data"][0]["embedding"]
        return vector


# A command line whose models take for ever to load.
LOADING = """
import threading
from loguru import logger
from freshvec.cli.main import main
from freshvec.encoding.loading import Models

def encoder(self, name):
    logger.info("loading")
    threading.Event().wait()

Models.encoder = encoder
main()
"""


# One whose models cannot be asked any more after the first text.
LOST = """
from freshvec.cli.main import main
from freshvec.encoding.encoder import OnnxEncoder

def encode(self, batch):
    raise SystemError("the device has fallen off the bus")

OnnxEncoder.encode = encode
OnnxEncoder.device = property(lambda self: "cuda", lambda self, device: None)
main()
"""


def test_serve_ends_where_only_another_process_can_go_on(
    models_dir: Path, tmp_path: Path, address: str, workers: Callable[..., WorkerProcess]
) -> None:
    toml = config_toml("postgresql:///nowhere", models_dir, DOCS_SYNC)
    server = workers(
        write_config(tmp_path / "freshvec.toml", toml), "serve", "--address", address, python=("-c", LOST)
    )

    def is_over() -> bool:
        with suppress(OSError):
            embedding(address, "a text")
        return server.process.poll() is not None

    until("it has ended", is_over)
    assert server.process.returncode == 1
    assert "so that its supervisor starts another" in server.output
    assert "Traceback" not in server.output


def test_serve_can_be_stopped_while_it_loads_models(
    models_dir: Path, tmp_path: Path, workers: Callable[..., WorkerProcess]
) -> None:
    toml = config_toml("postgresql:///nowhere", models_dir, DOCS_SYNC)
    server = workers(write_config(tmp_path / "freshvec.toml", toml), "serve", python=("-c", LOADING))
    until("it loads them", lambda: "loading" in server.output)
    assert server.stop() == -signal.SIGTERM


def test_serve_needs_no_database(
    models_dir: Path, tmp_path: Path, address: str, workers: Callable[..., WorkerProcess]
) -> None:
    config = write_config(
        tmp_path / "freshvec.toml", config_toml("postgresql:///nowhere", models_dir, DOCS_SYNC)
    )
    server = workers(config, "serve", "--address", address)
    until("it serves", lambda: "serving embeddings on" in server.output)
    assert len(embedding(address, "making a loaf")) == 384
    again = freshvec("serve", "--address", address, "--config", str(config))
    assert again.returncode == 1
    assert address in again.stderr
    assert "another port" in again.stderr
    assert server.stop() == 0


def test_an_application_searches_what_the_same_worker_keeps_fresh(
    config: Path, docs: Connection, address: str, workers: Callable[..., WorkerProcess]
) -> None:
    worker = workers(config, "run", "--serve", address)
    fresh = "SELECT count(*) FROM docs_embedded"
    until(
        "there is a target", lambda: docs.execute("SELECT to_regclass('docs_embedded')").fetchone() != (None,)
    )
    until("the rows are embedded", lambda: docs.execute(fresh).fetchone() == (2,))
    nearest = "SELECT id FROM docs_embedded ORDER BY embedding <=> %s::vector LIMIT 1"
    assert docs.execute(nearest, (str(embedding(address, "making a loaf")),)).fetchone() == (1,)
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(30) == 0
    assert "Traceback" not in worker.output


@pytest.mark.parametrize(
    ("given", "message", "code"),
    [
        ("0.0.0.0:1", "no key is set", 78),
        ("8377", "write host:port", 2),
        ("localhost:x", "write host:port", 2),
    ],
)
def test_bad_addresses_are_refused(config: Path, given: str, message: str, code: int) -> None:
    done = freshvec("serve", "--address", given, "--config", str(config))
    assert done.returncode == code
    assert message in done.stderr
    assert freshvec("run", "--serve", given, "--config", str(config)).returncode == code


def test_the_worker_does_without_the_packages_of_a_server(
    config: Path, docs: Connection, tmp_path: Path, workers: Callable[..., WorkerProcess]
) -> None:
    (tmp_path / "starlette.py").write_text("raise ImportError('not there', name='starlette')")
    without = {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    assert freshvec("backfill", "--config", str(config), env=without).returncode == 0
    by_default = "import os, runpy; del os.environ['FRESHVEC_WEB_ADDRESS']; "
    by_default += "runpy.run_module('freshvec', run_name='__main__')"
    worker = workers(config, env=without, python=("-c", by_default))
    docs.execute("UPDATE docs SET body = 'Tuning a piano' WHERE id = 2")
    until("it is kept fresh", lambda: docs.execute(IS_FRESH).fetchone() == (True,))
    assert "no page and no metrics" in worker.output
    assert worker.stop() == 0
    done = freshvec("serve", "--config", str(config), env=without)
    assert done.returncode == 78
    assert "pip install 'freshvec[serve]'" in done.stderr
