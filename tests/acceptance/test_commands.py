"""Every command once, in the order a user comes to them."""

import json
from pathlib import Path

from tests.support import DOCS_SYNC, Connection, config_toml, exists, freshvec, write_config


def test_the_whole_day_of_a_user(url: str, docs: Connection, models_dir: Path, tmp_path: Path) -> None:
    docs.execute("INSERT INTO docs VALUES (1, 'How to bake bread'), (2, 'Tuning a guitar'), (3, NULL)")
    path = write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC))
    config = ["--config", str(path)]
    unapplied = freshvec("status", "--check", *config)
    assert unapplied.returncode == 3
    assert "docs: declared, but never applied" in unapplied.stderr
    assert "CREATE TABLE" in freshvec("plan", "--sql", *config).stdout
    assert "applied" in freshvec("apply", *config).stdout
    assert "nothing to do" in freshvec("apply", *config).stdout
    assert freshvec("verify", *config).returncode == 3
    assert freshvec("status", "--check", *config).returncode == 3
    assert freshvec("backfill", *config).returncode == 0
    assert "3 rows, every one fresh" in freshvec("verify", *config).stdout
    shown = freshvec("status", "--check", "--json", *config)
    assert shown.returncode == 0
    (row,) = json.loads(shown.stdout)
    assert (row["sync"], row["coverage"], row["amiss"]) == ("docs", 1, None)
    assert "docs: no worker" in freshvec("status", *config).stdout
    found = freshvec("search", "making a loaf", "-n", "1", *config)
    assert "bake bread" in found.stdout
    docs.execute("UPDATE docs SET body = 'changed while nobody listens' WHERE id = 1")
    assert freshvec("verify", *config).returncode == 0  # it waits in the queue: that is no fault
    assert freshvec("status", "--check", *config).returncode == 3
    for bounds, code in ((["--max-lag", "3600"], 0), (["--max-lag", "0"], 3), (["--min-coverage", "0.9"], 3)):
        assert freshvec("status", *bounds, *config).returncode == code, bounds
    for wrong in (["--min-coverage", "99"], ["--watch", "--json"], ["--watch", "--check"]):
        assert freshvec("status", *wrong, *config).returncode == 2
    docs.execute("SET freshvec.is_ours = on")  # or it would be noticed
    docs.execute(
        "UPDATE docs_embedding SET embedding = array_fill(0.1::real, ARRAY[384])::vector WHERE id = 2"
    )
    assert freshvec("verify", *config).returncode == 0  # the hash is right
    assert "1 wrong vector" in freshvec("verify", "--vectors", "10", *config).stdout
    assert freshvec("verify", "--vectors", "10", "--repair", *config).returncode == 3
    assert freshvec("retry", *config).returncode == 0
    assert freshvec("backfill", *config).returncode == 0
    assert freshvec("verify", "--vectors", "10", *config).returncode == 0
    assert freshvec("remove", "docs", "--yes", *config).returncode == 0
    assert not exists(docs, "docs_embedding")
