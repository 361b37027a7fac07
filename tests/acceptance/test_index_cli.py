"""The index as its user sees it: killed workers, and what the commands say and do."""

import json
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.support import (
    DOCS_SYNC,
    Connection,
    WorkerProcess,
    config_toml,
    exists,
    freshvec,
    until,
    write_config,
)

VALID = """
SELECT c.relname::text, c.oid::int FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
 WHERE i.indrelid = to_regclass('docs_embedding') AND NOT i.indisprimary AND i.indisvalid
"""
BUILDING = "SELECT c.oid::int FROM pg_stat_progress_create_index p JOIN pg_class c ON c.oid = p.index_relid"


@pytest.fixture
def config(url: str, docs: Connection, models_dir: Path, tmp_path: Path) -> Path:
    docs.execute("INSERT INTO docs SELECT g, 'text number ' || g FROM generate_series(1, 50) g")
    declared = DOCS_SYNC + 'index = { type = "hnsw" }\n'
    return write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, declared))


def run(config: Path, *arguments: str) -> str:
    """What a command printed, in one line."""
    done = freshvec(*arguments, "--config", str(config))
    assert done.returncode == 0, done.stdout + done.stderr
    return " ".join(done.stdout.split())


def test_a_killed_worker_has_its_build_finished(
    config: Path, url: str, docs: Connection, workers: Callable[..., WorkerProcess]
) -> None:
    first = workers(config)
    with psycopg.connect(url) as holder:
        until("the target is there", lambda: exists(docs, "docs_embedding"))
        holder.execute("LOCK docs_embedding IN ROW EXCLUSIVE MODE")  # nothing is finished meanwhile
        until("it is being built", lambda: docs.execute(BUILDING).fetchone())
        first.kill()
        assert docs.execute(BUILDING).fetchone(), "the server goes on"
        second = workers(config)
        docs.execute("UPDATE docs SET body = 'live' WHERE id = 7")
        until(
            "another keeps the rows",
            lambda: docs.execute("SELECT freshvec.is_fresh('docs', '7')").fetchone() == (True,),
        )
        (built,) = docs.execute(BUILDING).fetchone() or (0,)
    until("it is built", lambda: docs.execute(VALID).fetchall())
    assert [oid for _, oid in docs.execute(VALID)] == [built], "by the session that began it"
    assert second.stop() == 0
    assert "could not" not in second.output


def test_what_the_commands_say_and_do(config: Path, docs: Connection) -> None:
    assert "built once every row has its vector" in run(config, "plan", "--no-measure")
    assert "built once every row has its vector" in run(config, "apply")
    assert "CREATE INDEX CONCURRENTLY" in run(config, "plan", "--sql")
    assert docs.execute(VALID).fetchall() == []
    run(config, "backfill")
    ((name, before),) = docs.execute(VALID).fetchall()
    assert f"index {name} (hnsw): as declared" in run(config, "plan", "--no-measure")
    assert "CREATE INDEX" not in run(config, "plan", "--sql")
    assert name in run(config, "status")
    (shown,) = json.loads(run(config, "status", "--json"))
    assert (shown["index_name"], shown["index_valid"], shown["index_share"]) == (name, True, None)
    assert f"index {name} is dropped" in run(config, "backfill", "--drop-index")
    ((again, after),) = docs.execute(VALID).fetchall()
    assert again == name
    assert after != before
    config.write_text(config.read_text().replace('{ type = "hnsw" }', "{ m = 8 }"))
    said = run(config, "apply")
    assert "to build, since every row has its vector" in said
    ((other, _),) = docs.execute(VALID).fetchall()
    assert other != name
    config.write_text(config.read_text().replace("index = { m = 8 }", ""))
    assert f"index {other}: to drop, since it is declared no more" in run(config, "plan", "--no-measure")
    run(config, "apply")
    assert docs.execute(VALID).fetchall() == []
