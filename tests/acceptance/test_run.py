"""`run` as its user runs it: start, take over, stop."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import DOCS_SYNC, Connection, Worker, config_toml, until, write_config

FRESH = "SELECT backlog = 0 AND coverage = 1 AND backfill_done FROM embedsync.status WHERE sync = 'docs'"


@pytest.fixture
def config(url: str, docs: Connection, models_dir: Path, tmp_path: Path) -> Path:
    docs.execute("INSERT INTO docs SELECT g, 'text number ' || g FROM generate_series(1, 50) g")
    return write_config(tmp_path / "embedsync.toml", config_toml(url, models_dir, DOCS_SYNC))


def is_fresh(docs: Connection) -> bool:
    exists = docs.execute("SELECT to_regclass('embedsync.status')").fetchone() != (None,)
    return exists and docs.execute(FRESH).fetchone() == (True,)


def has(docs: Connection, row: int, text: str) -> bool:
    query = "SELECT content_hash = substring(sha256(%s) FROM 1 FOR 16) FROM docs_embedding WHERE id = %s"
    return docs.execute(query, (text.encode(), row)).fetchone() == (True,)


def test_backfill_then_live_then_a_clean_end(config: Path, docs: Connection, workers: Callable[..., Worker]) -> None:
    worker = workers(config)
    until("the backfill is done", lambda: is_fresh(docs))
    docs.execute("UPDATE docs SET body = 'live' WHERE id = 7")
    until("the edit is fresh", lambda: has(docs, 7, "live"))
    began = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - began < 15
    assert "Traceback" not in worker.output


def test_a_second_signal_ends_at_once_and_nothing_is_lost(config: Path, docs: Connection, workers: Callable[..., Worker]) -> None:
    docs.execute("INSERT INTO docs SELECT g, repeat('long text ', 200) || g FROM generate_series(1000, 3000) g")
    worker = workers(config)
    until("the backfill has begun", lambda: docs.execute("SELECT to_regclass('docs_embedding')").fetchone() != (None,))
    worker.process.send_signal(signal.SIGTERM)
    until("the first signal is heard", lambda: "finishing what is under way" in worker.output)
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(10) in (0, 128 + signal.SIGTERM)
    docs.execute("DELETE FROM docs WHERE id > 1010")
    workers(config)
    until("everything is fresh", lambda: is_fresh(docs), 60)


def test_the_second_takes_over_when_the_first_is_killed(config: Path, docs: Connection, workers: Callable[..., Worker]) -> None:
    first = workers(config)
    until("the first has done its work", lambda: is_fresh(docs))
    second = workers(config)
    until("the second stands by", lambda: "standing by" in second.output)
    first.kill()
    docs.execute("UPDATE docs SET body = 'orphaned for a moment' WHERE id = 1")
    until("the second keeps it fresh", lambda: has(docs, 1, "orphaned for a moment"), 10)


def test_two_starting_together_apply_once(config: Path, docs: Connection, workers: Callable[..., Worker]) -> None:
    both = [workers(config), workers(config)]
    until("the backfill is done", lambda: is_fresh(docs))
    until("one of them stands by", lambda: any("standing by" in worker.output for worker in both))
    assert sum("migrated:" in worker.output for worker in both) == 1
    assert sum("applied to" in worker.output for worker in both) == 1
    assert [worker.stop() for worker in both] == [0, 0]


def test_a_missing_model_does_not_keep_the_other_table_from_being_fresh(
    url: str, docs: Connection, models_dir: Path, tmp_path: Path, workers: Callable[..., Worker]
) -> None:
    docs.execute("CREATE TABLE other (id int PRIMARY KEY, body text)")
    docs.execute("INSERT INTO docs VALUES (1, 'one')")
    other = DOCS_SYNC.replace('"docs"', '"other"').replace("all-MiniLM-L6-v2", "no-such-model")
    worker = workers(write_config(tmp_path / "two.toml", config_toml(url, models_dir, DOCS_SYNC + other)))
    until("docs is fresh", lambda: is_fresh(docs))
    assert "sync other: cannot find model 'no-such-model'" in worker.output


def test_a_server_that_is_away_is_waited_for(models_dir: Path, tmp_path: Path, workers: Callable[..., Worker]) -> None:
    toml = config_toml("postgresql://postgres@/x?host=/nowhere", models_dir, DOCS_SYNC)
    worker = workers(write_config(tmp_path / "away.toml", toml))
    until("it says so", lambda: "cannot connect to the database" in worker.output)
    assert "next attempt in" in worker.output
    assert worker.stop() == 0
