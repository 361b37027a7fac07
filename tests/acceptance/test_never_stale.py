"""Never stale: hot rows, several writers, a daemon that is killed; at rest every vector is that of its row's text."""

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from freshvec.encoding.encoder import OnnxEncoder
from freshvec.target import upsert as target
from freshvec.worker import ownership
from tests.support import (
    DOCS_SYNC,
    Connection,
    NullEncoder,
    WorkerProcess,
    config_toml,
    serving,
    settings_for,
    sync_of,
    until,
    wait_fresh,
    write_config,
)

ROWS = 200
WORDS = [
    "amber",
    "basalt",
    "cedar",
    "dune",
    "ember",
    "fjord",
    "grove",
    "heath",
    "islet",
    "juniper",
    "kelp",
    "lagoon",
    "mesa",
    "opal",
    "prairie",
    "quartz",
]


def hammer(url: str, seed: int, is_over: Callable[[], bool], rows: int = ROWS) -> None:
    """One application session that edits, reverts, empties, deletes, inserts and renumbers hot rows."""
    choose = random.Random(seed)
    with psycopg.connect(url, autocommit=True) as connection:
        while not is_over():
            row, text = choose.randrange(rows), " ".join(choose.choices(WORDS, k=choose.randrange(1, 12)))
            kind = choose.random()
            if kind < 0.65:
                connection.execute("UPDATE docs SET body = %s WHERE id = %s", (text, row))
            elif kind < 0.75:
                connection.execute(
                    "UPDATE docs SET body = %s WHERE id = %s", (choose.choice([None, "", "the usual"]), row)
                )
            elif kind < 0.82:
                connection.execute("DELETE FROM docs WHERE id = %s", (row,))
            elif kind < 0.94:
                connection.execute(
                    "INSERT INTO docs VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET body = excluded.body",
                    (row, text),
                )
            elif kind < 0.97:
                with connection.transaction():
                    connection.execute("UPDATE docs SET body = %s WHERE id = %s", (text, row))
                    connection.execute("UPDATE docs SET body = 'the usual' WHERE id = %s", (row,))
            else:
                with suppress(psycopg.errors.UniqueViolation):  # another row has that number just now
                    connection.execute("UPDATE docs SET id = %s WHERE id = %s", (choose.randrange(rows), row))


def writers(url: str, is_over: Callable[[], bool], rows: int = ROWS) -> list[threading.Thread]:
    threads = [threading.Thread(target=hammer, args=(url, seed, is_over, rows)) for seed in range(4)]
    for thread in threads:
        thread.start()
    return threads


def passed(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds have gone by since now."""
    ends = time.monotonic() + seconds
    return lambda: time.monotonic() > ends


def stale(connection: Connection, encode: Callable[[list[str]], np.ndarray]) -> list[str]:
    """What is wrong at rest: every vector against a fresh encoding of its row's current text."""
    found = connection.execute(
        "SELECT d.id, t.id, nullif(d.body, ''), t.embedding::text FROM docs d FULL JOIN docs_embedding t USING (id)"
    ).fetchall()
    wrong = []
    for source, copy, text, vector in found:
        if source is None:
            wrong.append(f"{copy}: orphaned")
        elif copy is None or (text is not None and vector is None):
            wrong.append(f"{source}: missing")
        elif text is None and vector is not None:
            wrong.append(f"{source}: kept the vector of a text that is gone")
    have = [
        (row[0], row[2], np.array(row[3].strip("[]").split(","), dtype=np.float32))
        for row in found
        if row[2] and row[3]
    ]
    fresh = encode([text for _, text, _ in have])
    for (row, _, vector), wanted in zip(have, fresh, strict=True):
        cosine = float(vector @ wanted / np.linalg.norm(vector) / np.linalg.norm(wanted))
        if cosine <= 0.9999:
            wrong.append(f"{row}: cosine {cosine:.4f}")
    return wrong


def has_changed(connection: Connection, query: str, before: object) -> bool:
    return connection.execute(query).fetchone() != before


@pytest.mark.timeout(180)
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
        connection.execute(
            "INSERT INTO docs SELECT g, 'row ' || g FROM generate_series(0, %s) g", (ROWS - 1,)
        )
        worker = workers(config)
        until(
            "the worker has begun",
            lambda: connection.execute("SELECT to_regclass('docs_embedding')").fetchone() != (None,),
        )
        is_time_over, killed = passed(20), threading.Event()
        threads = writers(url, lambda: killed.is_set() and is_time_over())
        written = "SELECT count(*), max(fence) FROM docs_embedding"
        try:
            for kill in range(3):
                before = connection.execute(written).fetchone()
                until("the worker writes", partial(has_changed, connection, written, before))
                until("it has worked for a while", passed(4))
                assert worker.process.poll() is None, f"before kill {kill}: {worker.output}"
                worker.kill()
                worker = workers(config)
        finally:
            killed.set()
            for thread in threads:
                thread.join()
        at_rest = "SELECT backlog = 0 AND coverage = 1 AND backfill_done AND NOT rescan_waiting FROM freshvec.status"
        until("everything is fresh", lambda: connection.execute(at_rest).fetchone() == (True,), 90)
        assert stale(connection, lambda texts: encoder.encode(encoder.tokenize(texts))) == []
        assert worker.stop() == 0


def two_workers(url: str, application: Connection, seconds: float) -> list[str]:
    """Hammer with a quick and a slow worker that both believe they own the sync; what is stale at rest."""
    quick, slow = NullEncoder(), NullEncoder(0.05)
    settings = settings_for(url, sync_of("docs"), commit_every_seconds=0.05)
    with serving(settings, quick) as first, serving(settings, slow) as second:
        until("both run", lambda: all(service.keepers[0].pipeline is not None for service in (first, second)))
        for thread in writers(url, passed(seconds), rows=20):
            thread.join()
        slow.seconds_a_batch = 0
        until(
            "the queue is empty",
            lambda: application.execute("SELECT FROM freshvec.queue_docs").fetchone() is None,
        )
        for service in (first, second):  # whatever they read before that must be written as well
            if service.keepers[0].pipeline is not None:
                service.keepers[0].pipeline.wake()
        wait_fresh(first)
        wait_fresh(second)
        assert (quick.encoded > 0, slow.encoded > 0) == (True, True), "both have worked"
        return stale(application, lambda texts: quick.encode(quick.tokenize(texts)))


@pytest.fixture
def no_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "own", lambda connection, sync_id: True)


def test_two_workers_at_once_leave_nothing_stale_because_of_the_fence(
    url: str, docs: Connection, no_owner: None
) -> None:
    assert two_workers(url, docs, 6) == []


def test_without_the_fence_this_very_test_finds_stale_rows(
    url: str, docs: Connection, no_owner: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfenced: dict[str, Any] = {
        name: text.replace("t.fence < ", "0 < ") for name, text in target._SQL.items()
    }
    monkeypatch.setattr(target, "_SQL", unfenced)
    found: list[str] = []
    deadline = time.monotonic() + 60
    while not found and time.monotonic() < deadline:
        found = two_workers(url, docs, 4)
        docs.execute("TRUNCATE docs")
    assert found, "the hammer must be able to find a stale row"
