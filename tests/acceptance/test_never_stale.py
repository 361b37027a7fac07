"""Never stale: hot rows, several writers, a daemon that is killed; at rest every vector is its text's."""

import itertools
import random
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import psycopg
import pytest

from freshvec.encoding.encoder import OnnxEncoder
from freshvec.pipeline.ledger import Ledger, Portion
from freshvec.records import Outcome
from freshvec.target.upsert import TargetWriter
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
    stale,
    sync_of,
    until,
    wait_fresh,
    write_config,
)

ROWS = 200
WORDS = ["amber", "basalt", "cedar", "dune", "ember", "fjord", "grove", "heath", "islet", "kelp", "mesa"]


class Hammer:
    """One application session that edits, reverts, empties, deletes, inserts and renumbers hot rows."""

    def __init__(self, connection: Connection, seed: int, rows: int) -> None:
        self._execute = connection.execute
        self._connection = connection
        self._choose = random.Random(seed)
        self._rows = rows

    def strike(self) -> None:
        choose = self._choose
        row, text = choose.randrange(self._rows), " ".join(choose.choices(WORDS, k=choose.randrange(1, 12)))
        strikes = (self.edit, self.set_again, self.delete, self.insert, self.edit_twice, self.renumber)
        (strike,) = choose.choices(strikes, weights=(65, 10, 7, 12, 3, 3))
        strike(row, text)

    def edit(self, row: int, text: str | None) -> None:
        self._execute("UPDATE docs SET body = %s WHERE id = %s", (text, row))

    def set_again(self, row: int, text: str) -> None:
        self.edit(row, self._choose.choice([None, "", "the usual"]))

    def delete(self, row: int, text: str) -> None:
        self._execute("DELETE FROM docs WHERE id = %s", (row,))

    def insert(self, row: int, text: str) -> None:
        upsert = "INSERT INTO docs VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET body = excluded.body"
        self._execute(upsert, (row, text))

    def edit_twice(self, row: int, text: str) -> None:
        with self._connection.transaction():
            self.edit(row, text)
            self.edit(row, "the usual")

    def renumber(self, row: int, text: str) -> None:
        with suppress(psycopg.errors.UniqueViolation):  # another row has that number just now
            self._execute("UPDATE docs SET id = %s WHERE id = %s", (self._choose.randrange(self._rows), row))


@contextmanager
def hammers(url: str, rows: int) -> Iterator[None]:
    """Four sessions that write all the while."""
    over = threading.Event()

    def write(seed: int) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            hammer = Hammer(connection, seed, rows)
            while not over.is_set():
                hammer.strike()

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def last_fence(connection: Connection) -> int:
    """The fence of the latest read that has been written."""
    (fence,) = connection.execute("SELECT coalesce(max(fence), 0) FROM docs_embedding").fetchone() or (0,)
    return int(fence)


def has_written(connection: Connection, after: int) -> bool:
    return last_fence(connection) > after + 10


AT_REST = "SELECT backlog = 0 AND coverage = 1 AND backfill_done AND NOT rescan_waiting FROM freshvec.status"


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
            for kill in range(4):
                before = last_fence(connection)
                until("it has written many portions", partial(has_written, connection, before))
                assert process.is_running, f"before kill {kill}: {process.output}"
                if kill < 3:
                    process.kill()
                    process = workers(config)
        until("everything is fresh", lambda: connection.execute(AT_REST).fetchone() == (True,))
        assert stale(connection, encoder) == []
        assert process.stop() == 0


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


SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'freshvec%' AND state = '{}'"


def stopped_outside_of_transactions(process: WorkerProcess, connection: Connection) -> bool:
    """Stop it, unless it has begun a transaction: whose locks the server takes away only after 15 s."""

    def sessions(state: str) -> int:
        (number,) = connection.execute(SESSIONS.format(state).encode()).fetchone() or (0,)
        return int(number)

    process.process.send_signal(signal.SIGSTOP)
    until("its statements have ended", lambda: sessions("active") == 0)
    if sessions("idle in transaction") == 0:
        return True
    process.process.send_signal(signal.SIGCONT)
    return False


def owner(connection: Connection) -> tuple[int | None]:
    (pid,) = connection.execute("SELECT owner_pid FROM freshvec.status").fetchone() or (None,)
    return (pid,)


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
