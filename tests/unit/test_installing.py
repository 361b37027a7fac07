"""A model put in its place: readable by all, as a whole or not at all."""

import errno
import fcntl
import os
import signal
import tempfile
import threading
from pathlib import Path

import pytest

from freshvec.errors import ModelError
from freshvec.export.installing import installing


def install(folder: Path, text: str) -> None:
    with installing(folder, "m") as made:
        (made / "manifest.json").write_text(text)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def fail_half_way(folder: Path) -> None:
    with installing(folder, "m") as made:
        (made / "manifest.json").write_text("half")
        raise RuntimeError


def test_everybody_may_read_it_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        for text in ("first", "second"):
            install(tmp_path / "lib/models", text)
    finally:
        os.umask(before)
    model = tmp_path / "lib/models/m"
    for folder in (model, model.parent, model.parent.parent):
        assert folder.stat().st_mode & 0o777 == 0o755
    assert (model / "manifest.json").stat().st_mode & 0o777 == 0o644
    assert (model / "manifest.json").read_text() == "second"
    assert names(model.parent) == ["m"]


def test_what_fails_changes_nothing(tmp_path: Path) -> None:
    install(tmp_path, "first")
    with pytest.raises(RuntimeError):
        fail_half_way(tmp_path)
    assert (tmp_path / "m/manifest.json").read_text() == "first"
    assert names(tmp_path) == ["m"]


def test_what_a_killed_one_left_is_taken_away_and_what_another_fills_is_not(tmp_path: Path) -> None:
    pid = os.fork()
    if not pid:
        with installing(tmp_path, "m") as made:
            (made / "fp32.onnx").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    (left,) = names(tmp_path)
    with installing(tmp_path, "m") as other:
        assert not (tmp_path / left).exists()
        install(tmp_path, "first")
        (other / "manifest.json").write_text("second")
    assert (tmp_path / "m/manifest.json").read_text() == "second"
    assert names(tmp_path) == ["m"]


def test_a_folder_that_somebody_clears_before_it_is_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    make = tempfile.mkdtemp

    def make_and_clear(prefix: str, dir: Path) -> str:
        made.append(Path(make(prefix=prefix, dir=dir)))
        if len(made) == 1:
            install(tmp_path, "another")
        return str(made[-1])

    monkeypatch.setattr(tempfile, "mkdtemp", make_and_clear)
    install(tmp_path, "first")
    assert not made[0].exists()
    assert (tmp_path / "m/manifest.json").read_text() == "first"
    assert names(tmp_path) == ["m"]


def test_without_locks_it_goes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / ".m-abcdefgh").mkdir()  # whether somebody fills it cannot be told
    install(tmp_path, "first")
    assert sorted(names(tmp_path)) == [".m-abcdefgh", "m"]


@pytest.mark.parametrize("name", [".m-2026", ".m-abcdefgh.txt", ".other-abcdefgh", "m-abcdefgh"])
def test_what_is_no_folder_of_ours_stays(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    install(tmp_path, "first")
    assert (tmp_path / name).exists()


def test_a_model_is_there_at_every_moment(tmp_path: Path) -> None:
    install(tmp_path, "0")
    missing = 0
    done = threading.Event()

    def look() -> None:
        nonlocal missing
        while not done.is_set():
            missing += not (tmp_path / "m").exists()

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(300):
        install(tmp_path, str(number))
    done.set()
    reader.join()
    assert missing == 0


def test_a_link_in_its_place_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    install(tmp_path / "other", "theirs")
    (tmp_path / "own").mkdir()
    (tmp_path / "own/m").symlink_to(tmp_path / "other/m")
    install(tmp_path / "own", "ours")
    assert (tmp_path / "own/m/manifest.json").read_text() == "ours"
    assert (tmp_path / "other/m/manifest.json").read_text() == "theirs"
    assert names(tmp_path / "own") == ["m"]


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="--models-dir"):
        install(tmp_path / "file", "x")
