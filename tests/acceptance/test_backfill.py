"""`backfill` as its user runs it."""

from collections.abc import Callable
from pathlib import Path

from tests.support import DOCS_SYNC, Connection, Worker, config_toml, embedsync, until, write_config

COUNT = "SELECT count(*) FROM docs_embedding WHERE embedding IS NOT NULL"


def test_killed_in_the_middle_it_goes_on_from_its_checkpoint(
    url: str, docs: Connection, models_dir: Path, tmp_path: Path, workers: Callable[..., Worker]
) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'a text of some words, number ' || g FROM generate_series(1, 3000) g")
    config = write_config(tmp_path / "embedsync.toml", config_toml(url, models_dir, DOCS_SYNC, "page_rows = 200"))
    worker = workers(config, "backfill")
    until("the schema is there", lambda: docs.execute("SELECT to_regclass('embedsync.sync')").fetchone() != (None,))
    until(
        "pages are written", lambda: docs.execute("SELECT backfill_after FROM embedsync.sync").fetchone() not in (None, (None,))
    )
    worker.kill()
    done = docs.execute(COUNT).fetchone()
    assert done is not None
    assert 0 < done[0] < 3000
    again = embedsync("backfill", "--config", str(config))
    assert again.returncode == 0, again.stderr
    assert docs.execute(COUNT).fetchone() == (3000,)
    encoded = int(again.stderr.split(" encoded,")[0].split()[-1].replace(",", ""))
    assert encoded == 3000 - done[0], "what was written is not encoded again"
    assert "every row is fresh" in again.stderr
    assert "rows/s" in again.stderr
    assert "\x1b[" not in again.stderr, "no terminal, no control characters"


def test_while_a_worker_runs_it_refuses(
    url: str, docs: Connection, models_dir: Path, tmp_path: Path, workers: Callable[..., Worker]
) -> None:
    config = write_config(tmp_path / "embedsync.toml", config_toml(url, models_dir, DOCS_SYNC))
    worker = workers(config)
    until("the worker owns it", lambda: "owned by this worker" in worker.output)
    refused = embedsync("backfill", "--config", str(config))
    assert refused.returncode == 1
    assert "a running worker keeps it fresh" in refused.stderr
    assert "embedsync status" in refused.stderr


def test_the_whole_day_of_a_user(url: str, docs: Connection, models_dir: Path, tmp_path: Path) -> None:
    docs.execute("INSERT INTO docs VALUES (1, 'How to bake bread'), (2, 'Tuning a guitar'), (3, NULL)")
    config = ["--config", str(write_config(tmp_path / "embedsync.toml", config_toml(url, models_dir, DOCS_SYNC)))]
    assert "CREATE TABLE" in embedsync("plan", *config).stdout
    assert "applied" in embedsync("apply", *config).stdout
    assert "nothing to do" in embedsync("apply", *config).stdout
    assert embedsync("verify", *config).returncode == 3
    assert embedsync("status", "--check", *config).returncode == 3
    assert embedsync("backfill", *config).returncode == 0
    assert "3 rows, every one fresh" in embedsync("verify", *config).stdout
    shown = embedsync("status", "--check", "--json", *config)
    assert shown.returncode == 0
    assert '"coverage": 1' in shown.stdout
    assert "docs" in embedsync("status", *config).stdout
    found = embedsync("search", "making a loaf", "-n", "1", *config)
    assert "bake bread" in found.stdout
    docs.execute("UPDATE docs SET body = 'changed while nobody listens' WHERE id = 1")
    assert embedsync("verify", *config).returncode == 3
    assert embedsync("verify", "--repair", *config).returncode == 3
    assert embedsync("retry", *config).returncode == 0
    assert embedsync("backfill", *config).returncode == 0
    assert embedsync("verify", *config).returncode == 0
    assert embedsync("remove", "docs", "--yes", *config).returncode == 0
    assert docs.execute("SELECT to_regclass('docs_embedding')").fetchone() == (None,)
