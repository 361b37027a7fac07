"""Rows whose texts are cut, edited all the while, and a worker that is killed again and again."""

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from freshvec.db import connect
from freshvec.scans.verify import verify
from tests.passages import OVERLAP, TOKENS, WordEncoder, prose, stale_passages
from tests.support import REPOSITORY, Connection, bound_sync, settings_for, sync_of, until

ROWS, WRITERS, KILLS = 12, 3, 6
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'daemon'}:{REPOSITORY}"}
TEXT = "SELECT body FROM docs WHERE id = %s"
UPSERT = "INSERT INTO docs VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET body = excluded.body"
AT_REST = "SELECT backlog = 0 AND coverage = 1 AND backfill_done AND NOT rescan_waiting FROM freshvec.status"


@contextmanager
def edits(url: str) -> Iterator[None]:
    """Sessions that edit, empty, delete and insert the same few rows."""
    over = threading.Event()

    def write(seed: int) -> None:
        chance = random.Random(seed)
        with psycopg.connect(url, autocommit=True) as connection:
            while not over.is_set():
                row = chance.randrange(ROWS)
                kind = chance.choices(["paragraph", "whole", "empty", "delete"], weights=[12, 3, 1, 1])[0]
                if kind == "delete":
                    connection.execute("DELETE FROM docs WHERE id = %s", (row,))
                    continue
                (text,) = connection.execute("SELECT body FROM docs WHERE id = %s", (row,)).fetchone() or (
                    None,
                )
                if kind == "whole" or not text:
                    text = prose(chance.randrange(1, 30), chance.randrange(1000))
                paragraphs = text.split("\n\n")
                paragraphs[chance.randrange(len(paragraphs))] = prose(1, chance.randrange(1000))
                body = "" if kind == "empty" else "\n\n".join(paragraphs)
                upsert = (
                    "INSERT INTO docs VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET body = excluded.body"
                )
                connection.execute(upsert, (row, body))

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(WRITERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def workers(url: str) -> Iterator[list["subprocess.Popen[bytes]"]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait(60)


def test_no_passage_is_wrong_at_rest(
    url: str, docs: Connection, workers: list["subprocess.Popen[bytes]"]
) -> None:
    def start() -> None:
        command = [sys.executable, "-m", "tests.passages", url]
        workers.append(subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL))

    def fences() -> int:
        (fence,) = docs.execute("SELECT coalesce(max(fence), 0) FROM docs_embedding").fetchone() or (0,)
        return int(fence)

    start()
    until("it has begun", lambda: docs.execute("SELECT to_regclass('docs_chunk')").fetchone() != (None,), 60)
    with edits(url):
        for _ in range(KILLS):
            before = fences()
            until("it has written", lambda: fences() > before + 20, 60)  # noqa: B023
            workers[-1].kill()
            workers[-1].wait(60)
            start()
    until("all is fresh", lambda: docs.execute(AT_REST).fetchone() == (True,), 120)
    encoder = WordEncoder()
    assert stale_passages(docs, encoder, TOKENS, OVERLAP) == []
    settings = settings_for(url, sync_of("docs", chunk={"tokens": TOKENS, "overlap": OVERLAP}))
    with connect(settings.database.url, "test") as connection:
        assert verify(connection, bound_sync(connection, settings, encoder)).problems == {}
