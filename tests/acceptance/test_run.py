"""`run` as its user runs it: start, take over, stop."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import (
    DOCS_SYNC,
    MODEL,
    Connection,
    WorkerProcess,
    config_toml,
    content_hash,
    count,
    exists,
    freshvec,
    until,
    write_config,
)

FRESH = "SELECT backlog = 0 AND coverage = 1 AND backfill_done FROM freshvec.status WHERE sync = 'docs'"


@pytest.fixture
def config(url: str, docs: Connection, models_dir: Path, tmp_path: Path) -> Path:
    docs.execute("INSERT INTO docs SELECT g, 'text number ' || g FROM generate_series(1, 50) g")
    return write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC))


@pytest.fixture
def patient(config: Path) -> Path:
    """The same for a worker that may take long to end."""
    return write_config(config, config.read_text().replace("[daemon]", "[daemon]\nshutdown_seconds = 300.0"))


def is_fresh(docs: Connection) -> bool:
    return exists(docs, "freshvec.status") and docs.execute(FRESH).fetchone() == (True,)


def has(docs: Connection, row: int, text: str) -> bool:
    query = "SELECT content_hash FROM docs_embedding WHERE id = %s"
    return docs.execute(query, (row,)).fetchone() == (content_hash(text),)


def test_backfill_then_live_then_a_clean_end(
    patient: Path, docs: Connection, workers: Callable[..., WorkerProcess]
) -> None:
    process = workers(patient)
    until("the backfill is done", lambda: is_fresh(docs))
    docs.execute("UPDATE docs SET body = 'live' WHERE id = 7")
    until("the edit is fresh", lambda: has(docs, 7, "live"))
    assert process.stop(60) == 0, "at once: it may take 300 seconds"
    assert "Traceback" not in process.output


LONG_TEXTS = """
INSERT INTO docs SELECT 1000 + 60 * %s + g, g || repeat(' long text', 250) FROM generate_series(1, 60) g
"""


def test_a_second_signal_ends_at_once_and_nothing_is_lost(
    patient: Path, docs: Connection, workers: Callable[..., WorkerProcess]
) -> None:
    process = workers(patient)
    until("the backfill is done", lambda: is_fresh(docs))
    # Small statements, so live changes, which the first signal waits for; many seconds of them.
    for part in range(24):
        docs.execute(LONG_TEXTS, (part,))
    until("others are under way", lambda: count(docs, "docs_embedding WHERE id > 1000") > 0)
    process.terminate()
    until("the first signal is heard", lambda: "finishing what is under way" in process.output)
    assert process.stop() == 128 + signal.SIGTERM
    assert not is_fresh(docs), "it did not wait for all of it"
    docs.execute("DELETE FROM docs WHERE id > 1100")
    workers(patient)
    until("everything is fresh", lambda: is_fresh(docs))


def test_a_server_that_hangs_does_not_keep_it_from_ending(
    config: Path, docs: Connection, workers: Callable[..., WorkerProcess]
) -> None:
    """One that shares gives up its shards at its end, and hears of that."""
    quick = config.read_text().replace("[daemon]", "[daemon]\nshare = true\nshutdown_seconds = 1.0")
    process = workers(write_config(config, quick))
    until("the backfill is done", lambda: is_fresh(docs))
    sessions = docs.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'freshvec %'"
        " AND datname = current_database()"
    ).fetchall()
    for (pid,) in sessions:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert process.stop(60) == 1
    finally:
        for (pid,) in sessions:
            os.kill(pid, signal.SIGCONT)
    assert "what is under way does not end within 16 s: ended as it is" in process.output


def test_the_second_takes_over_when_the_first_is_killed(
    config: Path, docs: Connection, workers: Callable[..., WorkerProcess]
) -> None:
    first = workers(config)
    until("the first has done its work", lambda: is_fresh(docs))
    second = workers(config)
    until("the second stands by", lambda: "standing by" in second.output)
    first.kill()
    docs.execute("UPDATE docs SET body = 'orphaned for a moment' WHERE id = 1")
    until("the second keeps it fresh", lambda: has(docs, 1, "orphaned for a moment"))


def test_two_starting_together_apply_once(
    config: Path, docs: Connection, workers: Callable[..., WorkerProcess]
) -> None:
    both = [workers(config), workers(config)]
    until("the backfill is done", lambda: is_fresh(docs))
    until("one of them stands by", lambda: any("standing by" in process.output for process in both))
    assert sum("migrated:" in process.output for process in both) == 1
    assert sum("applied to" in process.output for process in both) == 1
    assert [process.stop() for process in both] == [0, 0]


def test_a_missing_model_does_not_keep_the_other_table_from_being_fresh(
    url: str, docs: Connection, models_dir: Path, tmp_path: Path, workers: Callable[..., WorkerProcess]
) -> None:
    docs.execute("CREATE TABLE other (id int PRIMARY KEY, body text)")
    docs.execute("INSERT INTO docs VALUES (1, 'one')")
    other = DOCS_SYNC.replace('"docs"', '"other"').replace("all-MiniLM-L6-v2", "no-such-model")
    process = workers(write_config(tmp_path / "two.toml", config_toml(url, models_dir, DOCS_SYNC + other)))
    until("docs is fresh", lambda: is_fresh(docs))
    assert "sync other: cannot find model 'no-such-model'" in process.output


def test_a_server_that_is_away_is_waited_for(
    models_dir: Path, tmp_path: Path, workers: Callable[..., WorkerProcess]
) -> None:
    toml = config_toml("postgresql://postgres@/x?host=/nowhere", models_dir, DOCS_SYNC)
    process = workers(write_config(tmp_path / "away.toml", toml))
    until("it says so", lambda: "cannot connect to the database" in process.output)
    assert "next attempt in" in process.output
    assert process.stop() == 0


BROKEN = {
    "without a key": ("CREATE TABLE other (body text)", "no primary key"),
    "without the column": ("CREATE TABLE other (id int PRIMARY KEY, txt text)", "body"),
    "without the table": ("SELECT", "other"),
}


@pytest.mark.parametrize(("broken", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_sync_keeps_no_other_from_being_fresh_and_is_tried_again(
    url: str,
    docs: Connection,
    models_dir: Path,
    tmp_path: Path,
    workers: Callable[..., WorkerProcess],
    broken: str,
    message: str,
) -> None:
    docs.execute(broken)
    docs.execute("INSERT INTO docs VALUES (1, 'one')")
    other = DOCS_SYNC.replace('"docs"', '"other"')
    process = workers(write_config(tmp_path / "two.toml", config_toml(url, models_dir, other + DOCS_SYNC)))
    until("docs is fresh", lambda: is_fresh(docs))
    docs.execute("UPDATE docs SET body = 'live' WHERE id = 1")
    until("an edit is fresh", lambda: has(docs, 1, "live"))
    (line,) = (line for line in process.output.splitlines() if "ERROR" in line)
    assert "sync other: " in line
    assert message in line
    docs.execute("DROP TABLE IF EXISTS other")
    docs.execute("CREATE TABLE other (id int PRIMARY KEY, body text)")
    docs.execute("INSERT INTO other VALUES (1, 'mended')")
    mended = "SELECT coverage = 1 AND backfill_done FROM freshvec.status WHERE sync = 'other'"
    until("the other is mended without a restart", lambda: docs.execute(mended).fetchone() == (True,))
    assert process.stop() == 0


def test_what_nobody_but_its_user_can_cure_ends_it_with_its_exit_code(
    url: str, models_dir: Path, tmp_path: Path
) -> None:
    good = config_toml(url, models_dir, DOCS_SYNC)
    path = tmp_path / "freshvec.toml"
    cases: list[tuple[str | None, list[str], int, str]] = [
        (good, ["nosuch"], 2, "there is no sync 'nosuch'; declared are: docs"),
        (config_toml(url, models_dir, ""), [], 78, "none is declared"),
        (good.replace("columns", "colums"), [], 78, "did you mean columns?"),
        (good, ["--no-such-option"], 2, "No such option"),
        (good.replace(MODEL, "no-such-model"), [], 78, "cannot find model 'no-such-model'"),
        (config_toml(url, tmp_path / "empty", DOCS_SYNC), [], 78, f"freshvec fetch {MODEL}"),
        (None, [], 78, "cannot be read"),
    ]
    for toml, arguments, code, message in cases:
        path.unlink(missing_ok=True)
        if toml is not None:
            write_config(path, toml)
        done = freshvec("run", *arguments, "--config", str(path))
        assert done.returncode == code, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr
