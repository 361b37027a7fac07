"""The commands, with vectors in a column of the table itself."""

import json
from pathlib import Path

from tests.acceptance.hammer import COLUMN_SYNC
from tests.support import Connection, config_toml, count, exists, freshvec, write_config


def test_a_column_from_plan_to_remove(url: str, docs: Connection, models_dir: Path, tmp_path: Path) -> None:
    docs.execute("INSERT INTO docs VALUES (1, 'How to bake bread'), (2, 'Tuning a guitar'), (3, NULL)")
    path = write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, COLUMN_SYNC))
    config = ["--config", str(path)]
    shown = freshvec("plan", "--no-measure", *config).stdout
    assert "column embedding" in shown
    assert "ACCESS EXCLUSIVE on public.docs, for some milliseconds, to add" in shown
    assert "of rows written anew" in shown
    assert "applied (target column embedding of docs)" in freshvec("apply", *config).stdout
    assert "nothing to do" in freshvec("apply", *config).stdout
    assert freshvec("backfill", *config).returncode == 0
    assert count(docs, "docs WHERE embedding IS NOT NULL") == 2
    assert "3 rows, every one fresh" in freshvec("verify", "--vectors", "10", *config).stdout
    (row,) = json.loads(freshvec("status", "--check", "--json", *config).stdout)
    assert (row["sync"], row["coverage"], row["amiss"]) == ("docs", 1, None)
    assert "bake bread" in freshvec("search", "making a loaf", "-n", "1", *config).stdout
    docs.execute("SET session_replication_role = replica; ALTER TABLE docs DISABLE TRIGGER ALL")
    docs.execute("UPDATE docs SET embedding = array_fill(0.1::real, ARRAY[384])::vector WHERE id = 2")
    docs.execute("ALTER TABLE docs ENABLE TRIGGER ALL; RESET session_replication_role")
    assert "1 different" in freshvec("verify", *config).stdout
    removed = freshvec("remove", "docs", "--yes", *config)
    assert "ALTER TABLE public.docs DROP COLUMN embedding; takes it away" in removed.stdout
    assert not exists(docs, "docs_embedding")
    assert "overwrites the vectors that are in column embedding" in freshvec("plan", *config).stdout
