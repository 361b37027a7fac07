"""Every command once, in the order a user comes to them."""

from pathlib import Path

from tests.support import DOCS_SYNC, Connection, config_toml, exists, freshvec, write_config


def test_the_whole_day_of_a_user(url: str, docs: Connection, models_dir: Path, tmp_path: Path) -> None:
    docs.execute("INSERT INTO docs VALUES (1, 'How to bake bread'), (2, 'Tuning a guitar'), (3, NULL)")
    path = write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC))
    config = ["--config", str(path)]
    assert "CREATE TABLE" in freshvec("plan", *config).stdout
    assert "applied" in freshvec("apply", *config).stdout
    assert "nothing to do" in freshvec("apply", *config).stdout
    assert freshvec("verify", *config).returncode == 3
    assert freshvec("status", "--check", *config).returncode == 3
    assert freshvec("backfill", *config).returncode == 0
    assert "3 rows, every one fresh" in freshvec("verify", *config).stdout
    shown = freshvec("status", "--check", "--json", *config)
    assert shown.returncode == 0
    assert '"coverage": 1' in shown.stdout
    assert "docs" in freshvec("status", *config).stdout
    found = freshvec("search", "making a loaf", "-n", "1", *config)
    assert "bake bread" in found.stdout
    docs.execute("UPDATE docs SET body = 'changed while nobody listens' WHERE id = 1")
    assert freshvec("verify", *config).returncode == 3
    assert freshvec("verify", "--repair", *config).returncode == 3
    assert freshvec("retry", *config).returncode == 0
    assert freshvec("backfill", *config).returncode == 0
    assert freshvec("verify", *config).returncode == 0
    assert freshvec("remove", "docs", "--yes", *config).returncode == 0
    assert not exists(docs, "docs_embedding")
