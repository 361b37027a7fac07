"""Every command once, in the order a user comes to them."""

from pathlib import Path

from tests.support import DOCS_SYNC, Connection, config_toml, embedsync, write_config


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
