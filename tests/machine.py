"""A machine of its own for a test: a small Debian under a real systemd, booted by systemd-nspawn.

It needs root, the Debian packages systemd-container and debootstrap, and once a network: the tree of the
machine's files and the wheels that are installed on it are kept in .cache, or in the folder that
FRESHVEC_TEST_CACHE names. A machine changes nothing of the tree; what it writes is in memory, and gone.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.support import REPOSITORY, until

CACHE = Path(os.environ.get("FRESHVEC_TEST_CACHE") or REPOSITORY / ".cache").resolve()
_SUITE, _PYTHON = "bookworm", "3.11"
_PACKAGES = "systemd,systemd-sysv,dbus,procps,python3,python3-venv"
_TOOLS = ("hatchling>=1.27,<2", "pip", "pipx", "uv")  # to build from source, and to install by


class Machine:
    """A booted machine; as a context manager it is switched off at the end."""

    def __init__(self, tree: Path, binds: Mapping[Path, str] = {}) -> None:
        """`binds` are folders of this machine and where they are seen, read-only, on the other."""
        command = ["systemd-nspawn", "--quiet", f"--directory={tree}", "--volatile=overlay", "--boot"]
        command += ["--register=no", "--keep-unit", "--private-network", f"--machine=freshvec-{os.getpid()}"]
        command += [f"--bind-ro={here}:{there}" for here, there in binds.items()]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._init = ""
        try:
            until("the machine has booted", self._is_booted)
        except BaseException:
            self.close()
            raise

    @property
    def root(self) -> Path:
        """Its files."""
        return Path(f"/proc/{self._init}/root")

    def try_to(self, line: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a line by its shell, as root in root's home."""
        enter = ["nsenter", f"--target={self._init}", "--all"]
        clean = ["env", "--ignore-environment", "HOME=/root", "LANG=C.UTF-8", *map("=".join, env.items())]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return subprocess.run(
            [*enter, *clean, path, "bash", "-c", f"cd\n{line}"],
            capture_output=True,
            text=True,
            timeout=600,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def run(self, line: str, **env: str) -> str:
        """The same; its output. Fails where it does."""
        done = self.try_to(line, **env)
        if done.returncode != 0:
            journal = self.try_to("journalctl --no-pager --lines=30").stdout
            raise AssertionError(f"{line}\n{done.stdout}{done.stderr}\n{journal}")
        return done.stdout

    def show(self, unit: str, *names: str) -> list[str]:
        """What systemd says of a unit."""
        return [self.run(f"systemctl show --value --property={name} {unit}").strip() for name in names]

    def close(self) -> None:
        if self._process.poll() is None and self._init:
            self.try_to("systemctl poweroff --no-block")
        else:
            self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(30)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """A file of the machine."""
        file = Path(f"{self.root}{path}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def _is_booted(self) -> bool:
        assert self._process.poll() is None, "systemd-nspawn has ended"
        # The first child only makes the one that stays.
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        self._init = children.split()[-1] if children.split() else ""
        return bool(self._init) and self.try_to("systemctl is-system-running").stdout.strip() in (
            "running",
            "degraded",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def tree() -> Path:
    """The files of a Debian with systemd and Python, made once. Skips the test where it cannot be."""
    lacking = [name for name in ("systemd-nspawn", "debootstrap") if shutil.which(name) is None]
    if os.geteuid() != 0 or lacking:
        pytest.skip(
            "a machine under a real systemd needs root, and `apt-get install systemd-container debootstrap`"
        )
    with _made_once(f"debian-{_SUITE}", _PACKAGES) as made:
        if made is not None:
            _run("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", _SUITE, str(made))
    return _path(f"debian-{_SUITE}", _PACKAGES)


def wheels() -> Path:
    """The wheels of everything that freshvec needs, downloaded once: its machines have no network."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    extras = (*optional["cpu"], *optional["serve"], *optional["fetch"])
    wanted = [*project["dependencies"], *extras, *_TOOLS]
    constraints = REPOSITORY / "constraints.txt"
    key = "\n".join((*wanted, constraints.read_text()))
    with _made_once("wheels", key) as made:
        if made is not None:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
            pip += [f"--python-version={_PYTHON}", f"--constraint={constraints}", f"--dest={made}"]
            _run(*pip, *wanted)
    return _path("wheels", key)


def _path(name: str, key: str) -> Path:
    return CACHE / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:10]}"


@contextmanager
def _made_once(name: str, key: str) -> Iterator[Path | None]:
    """A folder to fill, or None where it is there already; what was made by another key is removed."""
    final = _path(name, key)
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"making-{name}").open("w") as lock:  # several processes of tests
        flock(lock, LOCK_EX)
        if final.exists():
            yield None
            return
        for old in (*CACHE.glob(f"{name}-*"), *CACHE.glob(f".{name}-*")):
            shutil.rmtree(old)
        scratch = final.with_name(f".{final.name}")
        scratch.mkdir()
        yield scratch
        scratch.rename(final)


def _run(*command: str) -> None:
    """Skips the test where it fails: it wants a network."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        pytest.skip(f"`{' '.join(command)}` failed; it needs a network once:\n{done.stdout[-600:]}")
