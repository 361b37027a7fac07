"""Small files that several processes write: one of them as a whole, whoever comes first."""

import json
from pathlib import Path
from typing import Any

import pytest

from freshvec.encoding.noted import note


def test_who_writes_meanwhile_does_not_mix_with_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, replace = tmp_path / "budgets.json", Path.replace

    def late(scratch: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace)
        note(path, {"by": "another"})  # before this one's is in its place
        return replace(scratch, target)

    monkeypatch.setattr(Path, "replace", late)
    note(path, {"by": "this one"})
    assert json.loads(path.read_text()) == {"by": "this one"}
    assert list(tmp_path.iterdir()) == [path]


def test_what_another_thread_finds_out_meanwhile_stops_nobody(tmp_path: Path) -> None:
    """The main loop notes a model's batch size when it lets go of the model, housekeeping those of all."""
    known: dict[str, Any] = {}

    class Meanwhile(dict[str, Any]):
        def items(self) -> Any:
            known["another"] = 2
            return super().items()

    known |= {"one": Meanwhile(size=1), "two": 2}
    note(tmp_path / "budgets.json", known)
    assert json.loads((tmp_path / "budgets.json").read_text()) == {"one": {"size": 1}, "two": 2}


def test_where_nothing_can_be_put_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "budgets.json").mkdir()
    note(tmp_path / "budgets.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["budgets.json"]
