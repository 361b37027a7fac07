"""Never stale: hot rows, several writers, a daemon that is killed; at rest every vector is its text's."""

import itertools
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import psycopg
import pytest

from freshvec.encoding.encoder import OnnxEncoder
from freshvec.pipeline.ledger import Ledger, Portion
from freshvec.records import Outcome
from freshvec.target.upsert import TargetWriter
from tests.acceptance.hammer import (
    AT_REST,
    COLUMN_SYNC,
    has_written,
    last_fence,
    owner,
    stopped_outside_of_transactions,
)
from tests.acceptance.hot_rows import Counter, Hammer, hammers, lost
from tests.staleness import EVERY_ROW_IN_COLUMN, stale
from tests.support import (
    DOCS_SYNC,
    Connection,
    NullEncoder,
    WorkerProcess,
    config_toml,
    count,
    exists,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
    write_config,
)

ROWS = 200


@pytest.mark.parametrize("version", ["18", "16"])
def test_nothing_is_stale_after_three_kills(
    request: pytest.FixtureRequest,
    version: str,
    models_dir: Path,
    encoder: OnnxEncoder,
    tmp_path: Path,
    workers: Callable[..., WorkerProcess],
) -> None:
    url: str = request.getfixturevalue("url" if version == "18" else "url16")
    config = write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE docs (id int PRIMARY KEY, body text)")
        texts = "INSERT INTO docs SELECT g, 'row ' || g FROM generate_series(0, %s) g"
        connection.execute(texts, (ROWS - 1,))
        process = workers(config)
        until("the worker has begun", lambda: exists(connection, "docs_embedding"))
        with hammers(url, ROWS):
            process = after_three_kills(process, partial(workers, config), connection)
        until("everything is fresh", lambda: connection.execute(AT_REST).fetchone() == (True,))
        assert stale(connection, encoder) == []
        assert process.stop() == 0


@pytest.mark.parametrize("version", ["18", "16"])
def test_in_a_column_of_the_table_nothing_is_stale_or_lost_after_three_kills(
    request: pytest.FixtureRequest,
    version: str,
    models_dir: Path,
    encoder: OnnxEncoder,
    tmp_path: Path,
    workers: Callable[..., WorkerProcess],
) -> None:
    """The application counts up another column meanwhile, in transactions that hold rows for a while."""
    url: str = request.getfixturevalue("url" if version == "18" else "url16")
    config = write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, COLUMN_SYNC))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE docs (id int PRIMARY KEY, body text)")
        Counter.prepare(connection, ROWS)
        process = workers(config)
        until("the worker has begun", lambda: exists(connection, "docs_embedding"))
        used: list[Hammer] = []
        with hammers(url, ROWS, kind=Counter, used=used):
            process = after_three_kills(process, partial(workers, config), connection)
        until("everything is fresh", lambda: connection.execute(AT_REST).fetchone() == (True,))
        assert stale(connection, encoder, EVERY_ROW_IN_COLUMN) == []
        assert lost(connection, used) == []
        assert process.stop() == 0


def after_three_kills(
    process: WorkerProcess, start: Callable[[], WorkerProcess], connection: Connection
) -> WorkerProcess:
    """Each has written many portions when it is killed; the one that runs at the end has written, too."""
    for _ in range(3):
        writes_many_portions(process, connection)
        process.kill()
        process = start()
    writes_many_portions(process, connection)
    return process


def writes_many_portions(process: WorkerProcess, connection: Connection) -> None:
    until("it has written many portions", partial(has_written, connection, last_fence(connection)))
    assert process.is_running, process.output


@pytest.mark.parametrize("version", ["18", "16"])
def test_a_worker_that_was_declared_dead_and_wakes_writes_nothing(
    request: pytest.FixtureRequest,
    version: str,
    models_dir: Path,
    encoder: OnnxEncoder,
    tmp_path: Path,
    workers: Callable[..., WorkerProcess],
) -> None:
    """It loses its ownership alone: its reader and its writer are still connected when it wakes."""
    url: str = request.getfixturevalue("url" if version == "18" else "url16")
    config = write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE docs (id int PRIMARY KEY, body text)")
        zombie = workers(config)
        until("the worker has begun", lambda: exists(connection, "docs_embedding"))
        with hammers(url, ROWS):
            until("it has written", partial(has_written, connection, last_fence(connection)))
            until("it is stopped", lambda: stopped_outside_of_transactions(zombie, connection))
            before = owner(connection)
            connection.execute("SELECT pg_terminate_backend(%s)", before)
            living = workers(config)
            until("another owns the sync", lambda: owner(connection) not in (before, (None,)))
            until("and has written", partial(has_written, connection, last_fence(connection)))
            epoch = epoch_of(connection)
            zombie.process.send_signal(signal.SIGCONT)
            until("and goes on", partial(has_written, connection, last_fence(connection)))
            until("the zombie stands by", lambda: "standing by" in zombie.output)
        until("everything is fresh", lambda: connection.execute(AT_REST).fetchone() == (True,))
        assert stale(connection, encoder) == []
        assert epoch_of(connection) == epoch, "nobody has taken the sync over again"
        assert living.stop() == 0
        assert zombie.stop() == 0


def epoch_of(connection: Connection) -> int:
    (epoch,) = connection.execute("SELECT epoch FROM freshvec.sync").fetchone() or (0,)
    return int(epoch)


@pytest.fixture
def late_batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Every third batch with vectors reaches the writer late, so that newer readings are written before it.

    They come in time again once the event is set.
    """
    in_time, put, numbers = threading.Event(), Ledger.put, itertools.count()
    timers: list[threading.Timer] = []

    def putting(ledger: Ledger, portion: Portion, outcomes: list[Outcome]) -> None:
        is_store = any(outcome.embedding is not None for outcome in outcomes)
        if in_time.is_set() or not is_store or next(numbers) % 3:
            put(ledger, portion, outcomes)
        else:
            timers.append(threading.Timer(0.1, put, (ledger, portion, outcomes)))
            timers[-1].start()

    monkeypatch.setattr(Ledger, "put", putting)
    yield in_time
    for timer in timers:
        timer.join()


def hammered(url: str, docs: Connection, in_time: threading.Event) -> list[str]:
    """Hammer a few rows while batches come late; what is stale at rest."""
    encoder = NullEncoder()
    in_time.clear()
    with running(settings_for(url, sync_of("docs"), commit_every_seconds=0.01), encoder) as worker:
        wait_fresh(worker)
        with hammers(url, rows=20):
            until("it has worked for a while", lambda: encoder.encoded >= 1000)
        in_time.set()
        worker.sweep()
        until("the queue is empty", lambda: count(docs, "freshvec.queue_docs") == 0)
        wait_fresh(worker)
        return stale(docs, encoder)


@pytest.mark.parametrize("version", ["18", "16"])
def test_batches_that_come_late_leave_nothing_stale_because_of_the_fence(
    request: pytest.FixtureRequest, version: str, late_batches: threading.Event
) -> None:
    url: str = request.getfixturevalue("url" if version == "18" else "url16")
    with psycopg.connect(url, autocommit=True) as docs:
        docs.execute("CREATE TABLE docs (id bigint PRIMARY KEY, body text)")
        assert hammered(url, docs, late_batches) == []


def test_without_the_fence_this_very_test_finds_stale_rows(
    url: str, docs: Connection, late_batches: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TargetWriter, "statements", unfenced(TargetWriter.statements))
    until("the hammer finds a stale row", lambda: hammered(url, docs, late_batches), 120)


def unfenced(statements: Mapping[str, str]) -> dict[str, str]:
    return {name: text.replace("t.fence < ", "0 < ") for name, text in statements.items()}
