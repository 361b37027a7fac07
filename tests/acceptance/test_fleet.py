"""`--workers` as its user types it: several processes, one of everything that people see."""

import json
import os
import re
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from freshvec.encoding.encoder import OnnxEncoder
from tests.staleness import stale
from tests.support import (
    DOCS_SYNC,
    MODEL,
    Connection,
    WorkerProcess,
    config_toml,
    exists,
    free_port,
    freshvec,
    is_running,
    until,
    write_config,
)

ROWS = 200
FRESH = "SELECT backlog = 0 AND coverage = 1 AND backfill_done FROM freshvec.status WHERE sync = 'docs'"
FILL = "INSERT INTO docs SELECT g, 'text number ' || g FROM generate_series(1, %s) g"
WORKERS = ("--workers", "2")


@pytest.fixture
def config(url: str, docs: Connection, models_dir: Path, tmp_path: Path) -> Path:
    docs.execute(FILL, (ROWS,))
    toml = config_toml(url, models_dir, DOCS_SYNC, 'page_rows = 20\nlog_format = "json"')
    return write_config(tmp_path / "freshvec.toml", toml)


def is_fresh(docs: Connection) -> bool:
    return exists(docs, "freshvec.status") and docs.execute(FRESH).fetchone() == (True,)


def pids(output: str) -> dict[str, int]:
    """The processes' numbers by name, as the supervisor last said them."""
    return {name: int(pid) for name, pid in re.findall(r"(w\d) \(pid (\d+)\)", output)}


def test_two_keep_a_table_fresh_whichever_of_them_dies(
    config: Path, docs: Connection, encoder: OnnxEncoder, workers: Callable[..., WorkerProcess]
) -> None:
    page = {"FRESHVEC_WEB_ADDRESS": f"127.0.0.1:{free_port()}"}
    process = workers(config, "run", *WORKERS, env=page)
    until("both run", lambda: len(pids(process.output)) == 2)
    until("the backfill is done", lambda: is_fresh(docs))
    for dying in ("w0", "w1"):
        os.kill(pids(process.output)[dying], signal.SIGKILL)
        until("it is said", partial(lambda name: f"{name} was ended by SIGKILL" in process.output, dying))
        docs.execute("UPDATE docs SET body = body || ' edited' WHERE id % 7 = 0")
        until("edits are fresh", lambda: is_fresh(docs) and not stale(docs, encoder))
    until("nothing is left", lambda: "nothing is left to do" in process.output)
    assert process.stop() == 0, process.output
    lines = [json.loads(line) for line in process.output.splitlines()]
    said = {line["worker"] for line in lines if "worker" in line}
    assert said == {"w0", "w1"}
    serving = {line["worker"] for line in lines if "page and metrics on" in line["message"]}
    assert serving == {"w0"}
    assert "Traceback" not in process.output
    assert not any(map(is_running, pids(process.output).values()))


def test_each_line_says_whose_it_is_and_killing_the_first_process_ends_all(
    config: Path, docs: Connection, workers: Callable[..., WorkerProcess]
) -> None:
    text = write_config(config, config.read_text().replace('"json"', '"text"'))
    process = workers(text, "run", *WORKERS)
    until("both run", lambda: len(pids(process.output)) == 2)
    started = pids(process.output)
    assert re.search(r"INFO    w1 freshvec \S+: loading", process.output)
    process.kill()
    until("they have ended", lambda: not any(map(is_running, started.values())))
    until("their sessions, too", lambda: not docs.execute(OURS).fetchall())
    assert freshvec("run", *WORKERS, "--config", str(text), env={"FRESHVEC_DAEMON_LOG_LEVEL": "x"}).returncode


OURS = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'freshvec%'"


def test_a_backfill_by_two_ends_when_all_is_fresh(
    config: Path, docs: Connection, encoder: OnnxEncoder
) -> None:
    done = freshvec("backfill", *WORKERS, "--config", str(config))
    assert done.returncode == 0, done.stderr
    assert stale(docs, encoder) == []
    last = json.loads(done.stderr.splitlines()[-1])
    assert last["message"].startswith("docs: every row is fresh; ")
    assert "worker" not in last, "the supervisor tells it once"
    again = freshvec("backfill", *WORKERS, "--config", str(config))
    assert again.returncode == 0, again.stderr


def test_more_workers_than_the_server_bears_are_refused(config: Path) -> None:
    for command in ("run", "backfill"):
        done = freshvec(command, "--workers", "50", "--config", str(config))
        assert done.returncode == 1
        assert "cannot start 50 workers: they need 452 sessions, and of the 100 that" in done.stderr
        assert re.search(r"Start \d+ of them, or raise the limit: max_connections", done.stderr)


def test_what_only_its_user_can_cure_ends_all(config: Path, docs: Connection) -> None:
    write_config(config, config.read_text().replace(MODEL, "no-such-model"))
    for command in ("run", "backfill"):
        done = freshvec(command, *WORKERS, "--config", str(config))
        assert done.returncode == 78, done.stderr
        assert "ended with 78: all workers end" in done.stderr
    wrong = freshvec("run", "--workers", "some", "--config", str(config))
    assert wrong.returncode == 2
    assert "write a number of workers, or per-gpu" in wrong.stderr
