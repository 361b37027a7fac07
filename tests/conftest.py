"""Real parts for every test: Postgres 18 and 16 with pgvector, and the exported MiniLM."""

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from freshvec.embedded import EmbeddedPostgres
from freshvec.encoding.encoder import OnnxEncoder
from tests.exports import exported
from tests.support import MODEL, Connection, WorkerProcess, count, models_in, until

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["FRESHVEC_WEB_ADDRESS"] = "off"  # workers side by side would want one port
_numbers = itertools.count(1)


def _folder() -> str:
    """Where the servers' files are: in memory where there is room, since a database is made for each test."""
    memory = Path("/dev/shm")
    is_roomy = memory.is_dir() and shutil.disk_usage(memory).free > 4 * 2**30
    return str(memory) if is_roomy else "/tmp"


# Servers that wait for no disk, and whose logs do not fill the memory.
QUICK: dict[str, Any] = {"within": _folder(), "fsync": "off", "max_wal_size": "128MB"}


@pytest.fixture(scope="session")
def server18() -> Iterator[EmbeddedPostgres]:
    yield from _server(18)


@pytest.fixture(scope="session")
def server16() -> Iterator[EmbeddedPostgres]:
    yield from _server(16)


def _server(version: int) -> Iterator[EmbeddedPostgres]:
    """A server whose new databases have pgvector."""
    with EmbeddedPostgres(version, **QUICK) as server:
        with psycopg.connect(server.url("template1"), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
        yield server


def _new_database(server: EmbeddedPostgres) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} STRATEGY FILE_COPY")
        yield server.url(name)
        # Where a session is still ending, DROP DATABASE looks again only after 100 ms.
        sessions = f"pg_stat_activity WHERE datname = '{name}'"
        connection.execute(f"SELECT pg_terminate_backend(pid) FROM {sessions}")
        until("its sessions have ended", lambda: count(connection, sessions) == 0)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def server15() -> Iterator[EmbeddedPostgres]:
    """Debian's Postgres 15, which has what the embedded ones lack: ICU, XML, citext, ltree, postgres_fdw; no
    pgvector."""
    binaries = Path("/usr/lib/postgresql/15/bin")
    if not Path("/usr/share/postgresql/15/extension/citext.control").exists() or not binaries.exists():
        pytest.skip("ICU and contrib need Debian's Postgres 15: `apt-get install postgresql-15`")
    with EmbeddedPostgres(15, binaries, **QUICK) as server:
        yield server


@pytest.fixture
def url15(server15: EmbeddedPostgres) -> Iterator[str]:
    """A fresh database on Postgres 15: targets need `{ type = "real[]" }`."""
    yield from _new_database(server15)


@pytest.fixture
def url(server18: EmbeddedPostgres) -> Iterator[str]:
    """A fresh database with pgvector on Postgres 18."""
    yield from _new_database(server18)


@pytest.fixture
def url16(server16: EmbeddedPostgres) -> Iterator[str]:
    """A fresh database with pgvector on Postgres 16."""
    yield from _new_database(server16)


@pytest.fixture
def application(url: str) -> Iterator[Connection]:
    """The application's own connection, in autocommit mode."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def docs(application: Connection) -> Connection:
    """The application's connection, with an empty table `docs (id, body)`."""
    application.execute("CREATE TABLE docs (id bigint PRIMARY KEY, body text)")
    return application


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The real model in every precision, exported once and kept between runs."""
    return exported()


@pytest.fixture(scope="session")
def encoder(models_dir: Path) -> OnnxEncoder:
    """The real model on the CPU."""
    return models_in(models_dir, device="cpu").encoder(MODEL)


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Starts processes of `freshvec`; whatever still runs at the end is killed, and nothing else."""
    started: list[WorkerProcess] = []

    def start(config: Path, *arguments: str, **more: Any) -> WorkerProcess:
        log = tmp_path / f"worker-{len(started)}.log"
        started.append(WorkerProcess(config, *arguments, log=log, **more))
        return started[-1]

    yield start
    for process in started:
        process.close()
