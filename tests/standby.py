"""A server of its own with a table `docs`, and a hot standby of it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Self

import psycopg

from freshvec.embedded import EmbeddedPostgres


class Standby:
    """A hot standby of a server, streaming from it."""

    def __init__(self, primary: EmbeddedPostgres) -> None:
        self._primary = primary
        self.folder = Path(mkdtemp(prefix="freshvec-standby-", dir="/tmp"))
        self.folder.chmod(0o755)
        if primary.user:
            shutil.chown(self.folder, primary.user)
        self.data = self.folder / "data"
        self._options = f"-c listen_addresses='' -c unix_socket_directories='{self.folder}'"

    def __enter__(self) -> Self:
        source = self._primary.url()
        self._primary.run(
            "pg_basebackup", "-D", str(self.data), "-R", "-X", "stream", "-c", "fast", "-d", source
        )
        log = str(self.folder / "log")
        self._primary.run("pg_ctl", "-D", str(self.data), "-w", "-l", log, "-o", self._options, "start")
        return self

    def url(self) -> str:
        return f"postgresql://postgres:@/postgres?host={self.folder}"

    def promote(self) -> None:
        self._primary.run("pg_ctl", "-D", str(self.data), "-w", "promote")

    def __exit__(self, *raised: object) -> None:
        try:
            self._primary.run("pg_ctl", "-D", str(self.data), "-m", "immediate", "-w", "stop")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def server_with_docs() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(18) as server:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
            connection.execute("CREATE TABLE docs (id bigint PRIMARY KEY, body text)")
            connection.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 300) g")
        yield server
