"""The status of every sync for whoever watches: read now and then, however many ask and however often."""

import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any

from loguru import logger
from pydantic import SecretStr

from freshvec.db import Connection, connect, queries, translated
from freshvec.errors import DatabaseError
from freshvec.health import status
from freshvec.schema import migrations

_SQL = queries("health/watch")
_PATIENCE = 1.0  # seconds that who asks waits for a reading under way; then the last one has to do
_OLD = 10.0  # seconds after which a reading that does not end is said to be one
_LEAST_REST = 2.0  # seconds between two readings
_REST = 120.0  # times as long as a reading took: the server works less than a hundredth of a core for it


@dataclass(frozen=True)
class Seen:
    """Rows of `freshvec.status` by sync, and the rows of each that failed. `error`: why they are no newer."""

    syncs: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    read_at: float | None = None  # by the monotonic clock
    error: str | None = None

    @property
    def age(self) -> float | None:
        """Seconds since it was read; None before the first time."""
        return None if self.read_at is None else time.monotonic() - self.read_at


class StatusWatch:
    """Reads on a thread and a connection of its own, and only while somebody asks."""

    def __init__(self, url: SecretStr, *, with_failures: bool) -> None:
        """`with_failures`: read the rows that failed as well, where there are any."""
        self._url = url
        self._with_failures = with_failures
        self._seen = Seen()
        self._changed = threading.Condition()
        self._is_reading = False
        self._due = 0.0
        self._connection: Connection | None = None

    def latest(self) -> Seen:
        """What was seen last: of the last seconds, while the database answers. Waits for a second at most."""
        with self._changed:
            if not self._is_reading and time.monotonic() >= self._due:
                self._is_reading = True
                threading.Thread(target=self._read, name="status", daemon=True).start()
            self._changed.wait_for(lambda: not self._is_reading, _PATIENCE)
            if self._is_reading and self._seen.error is None and (self._seen.age or 0) > _OLD:
                return replace(self._seen, error="the database does not answer")
            return self._seen

    def _read(self) -> None:
        """Runs on its own thread: a server that is away may take many seconds to say so."""
        began = time.monotonic()
        try:
            seen = Seen(*self._asked(), read_at=time.monotonic())
        except DatabaseError as error:
            seen = replace(self._seen, error=str(error))
        except Exception as error:  # whatever it is, the next one who asks must find a way to read
            logger.debug("the status could not be read: {}", error)
            seen = replace(self._seen, error=f"{type(error).__name__}: {error}")
        now = time.monotonic()
        with self._changed:
            self._seen, self._is_reading = seen, False
            self._due = now + max(_LEAST_REST, _REST * (now - began))
            self._changed.notify_all()

    def _asked(self) -> tuple[dict[str, dict[str, Any]], dict[str, list[dict[str, Any]]]]:
        if self._connection is None or self._connection.closed or self._connection.broken:
            self._connection = connect(self._url, "watch")
            with translated("set up", "the watch"):
                self._connection.execute(_SQL["bound"])
        connection = self._connection
        if not migrations.is_bootstrapped(connection):
            return {}, {}
        rows = status.read(connection)
        failed = self._with_failures and any(row["rows_failed"] for row in rows)
        return {row["sync"]: row for row in rows}, self._failures(connection) if failed else {}

    def _failures(self, connection: Connection) -> dict[str, list[dict[str, Any]]]:
        """The rows that failed; the last ones where looking through a large target takes too long."""
        try:
            return status.failures(connection)
        except DatabaseError as error:
            logger.debug("{}", error)
            return self._seen.failures
