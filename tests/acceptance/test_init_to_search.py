"""From a table of one's own to a search, in three commands."""

from pathlib import Path

import pytest

from tests.support import Connection, freshvec

ROWS = 3000


def test_three_commands(
    url: str, docs: Connection, models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs.execute(
        "INSERT INTO docs SELECT n, 'Short remark number ' || n || ' about order ' || n * 7"
        f" FROM generate_series(2, {ROWS}) AS n"
    )
    docs.execute(
        "INSERT INTO docs VALUES (1, 'How to bake bread from flour, water and a night of patience.')"
    )
    monkeypatch.chdir(tmp_path)
    env = {"FRESHVEC_DATABASE_URL": url}
    asked = freshvec("init", "--yes", "--models-dir", str(models_dir), env=env)
    assert asked.returncode == 0, asked.stderr
    assert "freshvec run " in asked.stdout
    filled = freshvec("backfill", env=env)
    assert f"every row is fresh; {ROWS:,} rows" in filled.stderr
    found = freshvec("search", "making a loaf", "-n", "1", env=env)
    assert "How to bake bread" in found.stdout
