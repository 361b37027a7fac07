"""Small files that several processes write: one of them as a whole, whoever comes first."""

import json
from pathlib import Path

import pytest

from freshvec.encoding.noted import note, read


def test_who_writes_meanwhile_does_not_mix_with_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, replace = tmp_path / "budgets.json", Path.replace

    def late(scratch: Path, target: Path) -> Path:
        path.write_text('{"another": {}}')  # before this one's is in its place
        return replace(scratch, target)

    monkeypatch.setattr(Path, "replace", late)
    note(path, "this one", {})
    assert json.loads(path.read_text()) == {"this one": {}}
    assert list(tmp_path.iterdir()) == [path]


def test_what_others_have_noted_stays(tmp_path: Path) -> None:
    """Another process that began as early, with another model."""
    path = tmp_path / "budgets.json"
    note(path, "one", {"size": 1})
    note(path, "two", {"size": 2})
    note(path, "one", {"size": 3})
    assert read(path) == {"one": {"size": 3}, "two": {"size": 2}}


@pytest.mark.parametrize("found", ["", "[]", "{", "\ufeff{}"])
def test_what_cannot_be_read_is_written_anew(tmp_path: Path, found: str) -> None:
    path = tmp_path / "budgets.json"
    path.write_text(found)
    assert read(path) == {}
    note(path, "one", {"size": 1})
    assert read(path) == {"one": {"size": 1}}


def test_where_nothing_can_be_put_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "budgets.json").mkdir()
    note(tmp_path / "budgets.json", "one", {})
    assert [path.name for path in tmp_path.iterdir()] == ["budgets.json"]
