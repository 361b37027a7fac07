"""The demo, whole and interrupted, as root and as an ordinary user: it leaves nothing behind."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support import REPOSITORY, until


def leftovers() -> set[str]:
    """Files and processes of embedded servers."""
    running = {
        path.parent.name
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.exists() and b"embedsync-pg-" in _read(path) and b"postgres" in _read(path) and _state(path) != "Z"
    }
    return running | {path.name for path in Path("/tmp").glob("embedsync-pg-*")}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _state(path: Path) -> str:
    try:
        return (path.parent / "stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


def readable_python(uid: int) -> str | None:
    """An interpreter of this version that the user may run."""
    for path in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        try:
            subprocess.run([path, "-c", ""], user=uid, cwd="/", check=True, capture_output=True)
        except (OSError, subprocess.SubprocessError):
            continue
        return path
    return None


def start(models_dir: Path, python: str = sys.executable, **options: object) -> "subprocess.Popen[str]":
    command = [python, "-m", "embedsync", "demo", "--rows", "300", "--models-dir", str(models_dir)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)  # type: ignore[call-overload, no-any-return]


def test_it_shows_the_whole_job_and_cleans_up(models_dir: Path) -> None:
    before = leftovers()
    process = start(models_dir)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "300 docstrings" in output
    assert "every row is fresh; 300 rows" in output
    assert output.count(" ms ") == 7
    assert output.count("0.") >= 6
    assert "embedsync run" in output
    assert leftovers() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_cleans_up_too(models_dir: Path, number: signal.Signals) -> None:
    before = leftovers()
    process = start(models_dir)
    assert process.stdout is not None
    for line in process.stdout:
        if "owned by this worker" in line:
            break
    process.send_signal(number)
    output = process.stdout.read()
    assert process.wait(60) == 1
    assert "it was interrupted" in output
    assert "Traceback" not in output
    until("nothing is left", lambda: leftovers() == before)


@pytest.mark.skipif(os.geteuid() != 0, reason="this run is by an ordinary user, so the test above was the test for one")
def test_an_ordinary_user_can_run_it_as_well(models_dir: Path, tmp_path: Path) -> None:
    home = Path("/tmp") / f"embedsync-test-{os.getpid()}"
    home.mkdir(mode=0o755)
    user = pwd.getpwnam("nobody")
    packages = sysconfig.get_paths()["purelib"]
    python = readable_python(user.pw_uid)
    if python is None or subprocess.run(["ls", packages], user=user.pw_uid, capture_output=True, check=False).returncode:
        pytest.skip("Python lies where an ordinary user may not look: run the tests as one to cover this")
    try:
        shutil.copytree(models_dir, home / "models")
        shutil.copytree(REPOSITORY / "daemon", home / "daemon")
        for folder in ("migrations", "models"):
            shutil.copytree(REPOSITORY / folder, home / "daemon/embedsync/_data" / folder)
        for path in (home, *home.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid)
        environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": f"{home / 'daemon'}:{packages}"}
        process = start(
            home / "models", python, user=user.pw_uid, group=user.pw_gid, extra_groups=[], cwd=str(home), env=environment
        )
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
    finally:
        shutil.rmtree(home)
