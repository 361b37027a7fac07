"""Where models are looked for: in one's own folder and in the machine's."""

import os
import shutil
from pathlib import Path

import pytest

from freshvec.config import Settings
from freshvec.encoding.loading import Models
from freshvec.errors import UnusableModelError
from freshvec.models import places
from tests.support import MODEL


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another folder in the place of /var/lib/freshvec/models, and a home of one's own."""
    monkeypatch.setattr(places, "MACHINE", tmp_path / "var/models")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "var/models"


def test_root_exports_for_the_machine_and_others_for_themselves(
    machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "home/freshvec/models"
    for user, order in ((0, (machine, own)), (1000, (own, machine))):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        assert places.folders() == order
        assert Models(Settings()).folder == order[0]


def test_a_user_without_a_home_has_the_machines_alone(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 61_184)
    assert places.folders() == (machine,)


@pytest.mark.parametrize("user", [0, 1000])
def test_a_model_of_either_folder_is_found(
    machine: Path, tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch, user: int
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    with pytest.raises(UnusableModelError) as refused:
        Models(Settings()).artefact(MODEL)
    for folder in (machine, tmp_path / "home/freshvec/models"):
        assert str(folder) in str(refused.value)
        folder.mkdir(parents=True)
        (folder / MODEL).symlink_to(models_dir / MODEL)
        assert Models(Settings()).artefact(MODEL).folder == folder / MODEL
        (folder / MODEL).unlink()


def test_a_model_that_this_user_may_not_read_is_not_called_missing(
    machine: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read everything, so the manifest's refusal is what another user would get."""
    shutil.copytree(models_dir / MODEL, machine / MODEL, ignore=shutil.ignore_patterns("*.onnx"))

    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.is_relative_to(machine):
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UnusableModelError, match=f"chmod -R a\\+rX {machine}"):
        Models(Settings()).artefact(MODEL)


def test_what_a_worker_learns_goes_to_its_state_directory(
    machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    assert places.learnt(tmp_path) == tmp_path
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}/state:{tmp_path}/other")
    assert places.learnt(machine) == tmp_path / "state"
