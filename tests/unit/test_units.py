"""Units written for where the program is."""

import os
import sys
from pathlib import Path

import pytest

from freshvec import data, units
from freshvec.errors import FreshvecError
from freshvec.units import Installation
from tests.support import freshvec

OPT = Installation(Path("/opt/x/bin/freshvec"), (Path("/opt/x"), Path("/usr")))


def values(text: str, key: str) -> list[str]:
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{key}=")]


@pytest.mark.parametrize("unit", units.UNITS)
def test_the_program_is_the_one_that_is_installed(unit: str) -> None:
    made = units.files(OPT)
    (line,) = values(made[unit], "ExecStart")
    assert line.split()[0] == "/opt/x/bin/freshvec"
    assert values(made[unit], "ProtectHome") == ["yes"]
    assert set(made) == set(units.UNITS)


def test_of_a_home_the_units_see_the_program_alone() -> None:
    home = Path("/root/.local/share")
    tool = Installation(
        home / "pipx/venvs/f/bin/freshvec",
        (home / "pipx/venvs/f", home / "pipx/venvs/f/lib", home / "uv/python/3.11", Path("/usr")),
    )
    made = units.files(tool)
    for unit in units.UNITS:
        dropin = made[f"{unit}.d/program.conf"]
        assert values(dropin, "ProtectHome") == ["tmpfs"]
        shown = values(dropin, "BindReadOnlyPaths")
        assert shown == [str(home / "pipx/venvs/f"), str(home / "uv/python/3.11")]


def test_gpu_and_endpoint_are_drop_ins() -> None:
    made = units.files(OPT, gpu=True, endpoint=True)
    for unit in units.UNITS:
        assert values(made[f"{unit}.d/gpu.conf"], "PrivateDevices") == ["no"]
    assert "127.0.0.1:8377" in made["freshvec.service.d/serve.conf"]


def test_unusual_paths_are_one_word() -> None:
    made = units.files(Installation(Path("/srv/50% off/bin/freshvec"), ()))
    assert values(made["freshvec.service"], "ExecStart")[0].startswith('"/srv/50%% off/bin/freshvec" run')


def test_the_units_differ_in_what_they_are_for_alone() -> None:
    texts = [(data.folder("systemd") / unit).read_text() for unit in units.UNITS]
    assert len({text.split("DynamicUser=yes")[1].split("[Install]")[0].strip() for text in texts}) == 1
    service, member, folder, _ = (text.split("[Unit]")[1] for text in texts)
    assert folder.replace("/%i/", "/").replace(" (%i)", "") == service
    alone = "# That is one worker that shares with nobody.\nConflicts=freshvec.service\n"
    assert member.replace(alone, "").replace(" --member %i", "").replace(", worker %i", "") == service


def test_what_is_there_is_kept_unless_it_is_forced(tmp_path: Path) -> None:
    texts = {"a.service": "one", "a.service.d/b.conf": "two"}
    assert units.write(tmp_path, texts) == [tmp_path / name for name in texts]
    assert units.write(tmp_path, texts) == []
    (tmp_path / "a.service").write_text("mine")
    (tmp_path / "a.service.d/b.conf").unlink()
    with pytest.raises(FreshvecError, match="--force"):
        units.write(tmp_path, texts)
    assert not (tmp_path / "a.service.d/b.conf").exists(), "all or nothing"
    units.write(tmp_path, texts, force=True)
    assert (tmp_path / "a.service").read_text() == "one"


def test_a_unit_that_is_no_text_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.service").write_bytes(b"\xff")
    with pytest.raises(FreshvecError, match="--force"):
        units.write(tmp_path, {"a.service": "one"})
    units.write(tmp_path, {"a.service": "one"}, force=True)
    assert (tmp_path / "a.service").read_text() == "one"


def test_the_links_to_the_interpreter_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uv's environments lead to their Python through a folder that is a link itself."""
    (tmp_path / "python/3.11.9/bin").mkdir(parents=True)
    (tmp_path / "python/3.11.9/bin/python3.11").write_text("")
    (tmp_path / "python/3.11").symlink_to("3.11.9")
    (tmp_path / "tool/bin").mkdir(parents=True)
    (tmp_path / "tool/bin/python").symlink_to(tmp_path / "python/3.11/bin/python3.11")
    (tmp_path / "tool/bin/freshvec").write_text("")
    (tmp_path / "tool/bin/freshvec").chmod(0o755)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "tool"))
    assert tmp_path / "python/3.11" in units.installation().folders
    (tmp_path / "tool/bin/freshvec").chmod(0o700)
    with pytest.raises(FreshvecError, match="chmod -R a"):
        units.installation()


def test_the_command(tmp_path: Path) -> None:
    to = ("--to", str(tmp_path / "system"))
    printed = freshvec("install-units", "--print", *to)
    assert f"# {tmp_path}/system/freshvec.service\n" in printed.stdout
    assert (
        f"would write {tmp_path}/system/freshvec@.service"
        in freshvec("install-units", "--dry-run", *to).stdout
    )
    assert not (tmp_path / "system").exists()
    done = freshvec("install-units", *to)
    assert "systemctl enable --now freshvec" in done.stdout
    unit = tmp_path / "system/freshvec.service"
    (line,) = values(unit.read_text(), "ExecStart")
    assert os.access(line.split()[0], os.X_OK)
    assert unit.stat().st_mode & 0o777 == 0o644
    assert "up to date" in freshvec("install-units", *to).stdout


def test_what_the_kernel_ends_for_memory_does_not_end_the_whole_unit() -> None:
    for unit in units.UNITS:
        text = (data.folder("systemd") / unit).read_text()
        assert values(text, "OOMPolicy") == ["continue"], unit
