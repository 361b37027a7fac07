"""The demo, whole and interrupted, as root and as an ordinary user: it leaves nothing behind."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support import REPOSITORY, until

PREFIX = "/tmp/freshvec-pg-"
ROWS = 100


class Demo:
    """A running demo and the folder of its own server: others may run servers of theirs on this machine."""

    def __init__(self, models_dir: Path, log: Path, python: str = sys.executable, **options: Any) -> None:
        self._log = log
        command = [python, "-m", "freshvec", "demo", "--rows", str(ROWS), "--models-dir", str(models_dir)]
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, **options)
        until(
            "its server is being made",
            lambda: self.folder() is not None or self.process.poll() is not None,
            60,
        )
        folder = self.folder()
        assert folder is not None, self.output
        self._folder = folder

    _found: Path | None = None

    def folder(self) -> Path | None:
        """The folder named in the command line of the `initdb` it runs."""
        try:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                for word in child.cmdline():
                    if word.startswith(PREFIX):
                        self._found = Path(*Path(word).parts[:3])
        except psutil.Error:
            pass
        return self._found

    @property
    def output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def server_runs(self) -> bool:
        return (self._folder / "data/postmaster.pid").exists()

    def leftovers(self) -> list[str]:
        """Files and processes of its server; every process of a server works in its data folder."""
        left = [str(self._folder)] if self._folder.exists() else []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                working, command = str((process / "cwd").readlink()), (process / "cmdline").read_bytes()
            except OSError:
                continue  # it has ended, or is another user's
            if working.startswith(str(self._folder)) or str(self._folder).encode() in command:
                left.append(f"{process.name}: {command.decode(errors='replace')}")
        return left

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)


@pytest.fixture
def demos(models_dir: Path, tmp_path: Path) -> Iterator[list[Demo]]:
    """Demos to be ended with the test."""
    started: list[Demo] = []
    yield started
    for demo in started:
        demo.close()


def readable_python(uid: int) -> str | None:
    """An interpreter of this version that the user may run."""
    for path in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        try:
            subprocess.run([path, "-c", ""], user=uid, cwd="/", check=True, capture_output=True)
        except (OSError, subprocess.SubprocessError):
            continue
        return path
    return None


def test_it_shows_the_whole_job_and_cleans_up(models_dir: Path, tmp_path: Path, demos: list[Demo]) -> None:
    demo = Demo(models_dir, tmp_path / "log")
    demos.append(demo)
    assert demo.process.wait(120) == 0, demo.output
    assert f"{ROWS} docstrings" in demo.output
    assert f"every row is fresh; {ROWS} rows" in demo.output
    assert demo.output.count(" ms ") == 7, (
        "three inserts, three edits and a delete, each with its milliseconds"
    )
    assert demo.output.count("0.") >= 6, "three searches with two rows each, with their similarity"
    assert "freshvec run" in demo.output
    assert demo.leftovers() == []


@pytest.mark.parametrize(
    ("number", "times"), [(signal.SIGINT, 1), (signal.SIGINT, 3), (signal.SIGTERM, 1), (signal.SIGHUP, 1)]
)
@pytest.mark.parametrize("moment", ["initdb", "the server starts", "the backfill", "live"])
def test_interrupted_it_cleans_up_too(
    models_dir: Path, tmp_path: Path, demos: list[Demo], number: signal.Signals, times: int, moment: str
) -> None:
    demo = Demo(models_dir, tmp_path / "log", start_new_session=True)
    demos.append(demo)
    if moment == "the server starts":
        until("its server starts", demo.server_runs)
    elif moment == "the backfill":
        until("the backfill begins", lambda: "owned by this worker" in demo.output)
    elif moment == "live":
        until("it is live", lambda: "4. live" in demo.output)
    for _ in range(times):
        os.killpg(demo.process.pid, number)  # as a terminal does: whoever is of its group gets it
    assert demo.process.wait(60) == 1, demo.output
    assert "it was interrupted" in demo.output
    assert "Traceback" not in demo.output
    assert demo.leftovers() == []


@pytest.mark.skipif(
    os.geteuid() != 0, reason="this run is by an ordinary user, so the test above was the test for one"
)
def test_an_ordinary_user_can_run_it_as_well(models_dir: Path, tmp_path: Path, demos: list[Demo]) -> None:
    home = Path("/tmp") / f"freshvec-test-{os.getpid()}"
    home.mkdir(mode=0o755)
    user = pwd.getpwnam("nobody")
    packages = sysconfig.get_paths()["purelib"]
    python = readable_python(user.pw_uid)
    if (
        python is None
        or subprocess.run(["ls", packages], user=user.pw_uid, capture_output=True, check=False).returncode
    ):
        pytest.skip("Python lies where an ordinary user may not look: run the tests as one to cover this")
    try:
        beside = shutil.ignore_patterns("*.json.*", "budgets.json", "trials.json")  # which others write now
        shutil.copytree(models_dir, home / "models", ignore=beside)
        shutil.copytree(REPOSITORY / "daemon", home / "daemon")
        for folder in ("migrations", "models"):
            shutil.copytree(REPOSITORY / folder, home / "daemon/freshvec/_data" / folder)
        for path in (home, *home.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "PYTHONPATH": f"{home / 'daemon'}:{packages}",
        }
        demo = Demo(
            home / "models",
            tmp_path / "log",
            python,
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            cwd=str(home),
            env=environment,
        )
        demos.append(demo)
        assert demo.process.wait(120) == 0, demo.output
        assert f"every row is fresh; {ROWS} rows" in demo.output
        assert demo.leftovers() == []
    finally:
        shutil.rmtree(home)
