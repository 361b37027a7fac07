"""Device memory and batch size in `freshvec.status`, on both versions of Postgres, and on the terminal."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from rich.console import Console

from freshvec.cli import progress_view, status_view
from freshvec.db import connect
from freshvec.health import status
from freshvec.worker.worker import Worker
from tests.support import NullEncoder, settings_for, sync_of

USED, TOTAL = 5436, 81559  # MiB


@pytest.fixture(params=["url", "url16"])
def database(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> NullEncoder:
    """An encoder that says it runs on a GPU, and a binding that knows one."""
    memory = SimpleNamespace(free=(TOTAL - USED) * 2**20, total=TOTAL * 2**20)
    binding = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda place: place,
        nvmlDeviceGetMemoryInfo=lambda handle: memory,
        NVMLError=RuntimeError,
    )
    monkeypatch.setitem(sys.modules, "pynvml", binding)
    encoder = NullEncoder()
    encoder.device = "cuda"
    return encoder


def backfilled(url: str, encoder: NullEncoder, models_dir: Path) -> tuple[Worker, dict[str, Any]]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE docs (id int PRIMARY KEY, body text)")
        connection.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 20) g")
    settings = settings_for(url, sync_of("docs"), models_dir=models_dir, batch_tokens=4096)
    service = Worker(settings, settings.sync, once=True, load=lambda _: encoder, tick_seconds=0.1)
    service.run()
    with connect(settings.database.url, "test") as connection:
        (row,) = status.read(connection)
    return service, row


def test_a_gpu_s_memory_and_the_batch_size_are_shown(database: str, gpu: NullEncoder, tmp_path: Path) -> None:
    service, row = backfilled(database, gpu, tmp_path)
    assert row["device"] == "cuda"
    assert row["batch_tokens"] == 4096
    assert row["device_memory_used_bytes"] == pytest.approx(USED * 2**20, abs=2)
    assert row["device_memory_total_bytes"] == pytest.approx(TOTAL * 2**20, abs=2)
    console = Console(width=200)
    with console.capture() as capture:
        console.print(status_view.table(status.Seen([row], {}, {})))
    assert "docs: cuda, batches of 4,096 tokens, 5.7 of 85.5 GB in use" in capture.get()
    notes = progress_view.notes(service.keepers[0], 20)
    assert notes[-2:] == ["batches of 4,096 tokens", "GPU 5.7 of 85.5 GB in use"]


def test_a_cpu_has_a_batch_size_and_no_memory_of_its_own(database: str, tmp_path: Path) -> None:
    _, row = backfilled(database, NullEncoder(), tmp_path)
    assert (row["batch_tokens"], row["device_memory_used_bytes"], row["device_memory_total_bytes"]) == (
        4096,
        None,
        None,
    )
    assert status_view.device(row) == "cpu, batches of 4,096 tokens"
