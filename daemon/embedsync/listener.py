"""The direct connection: LISTEN, the advisory locks that say who owns a sync, and waiting for either news or a signal."""

import os
import select
from typing import Any

from psycopg import sql
from pydantic import SecretStr

from embedsync.db import LOCK_CLASS, Connection, connect, translated

CHANNEL = "embedsync"
_OWN = "SELECT pg_try_advisory_lock(%s, %s)"
_OWNER = """
SELECT l.pid, a.application_name FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
 WHERE l.locktype = 'advisory' AND l.classid = %s AND l.objid = %s AND l.objsubid = 2 AND l.granted
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class Waker:
    """Interrupts a wait from another thread or from a signal handler."""

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def wake(self) -> None:
        try:
            os.write(self._write_end, b"!")
        except BlockingIOError:
            pass  # full: the wait is as good as over

    def clear(self) -> None:
        try:
            os.read(self.read_end, 4096)
        except BlockingIOError:
            pass

    def close(self) -> None:
        os.close(self.read_end)
        os.close(self._write_end)


class Listener:
    """Listens on one connection of its own. When that connection is lost, so are its locks: the owner steps back."""

    def __init__(self, url: SecretStr, waker: Waker) -> None:
        self.connection: Connection = connect(url, "listener")
        self._waker = waker
        with translated("listen on", "the database"):
            # The listener must not be cut off for being quiet.
            self.connection.execute("SET idle_session_timeout = 0")
            self.connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))

    def own(self, sync_id: int) -> bool:
        """Try to become the owner of a sync."""
        with translated("own", "a sync"):
            row = self.connection.execute(_OWN, (LOCK_CLASS, sync_id)).fetchone()
        return bool(row and row[0])

    def owner(self, sync_id: int) -> tuple[Any, ...] | None:
        """Backend pid and application name of a sync's owner."""
        with translated("find the owner of", "a sync"):
            return self.connection.execute(_OWNER, (LOCK_CLASS, sync_id)).fetchone()

    def wait(self, timeout: float) -> set[str]:
        """Names of the syncs that rang; empty after `timeout` seconds or when woken."""
        with translated("listen on", "the database"):
            rang = self._drain()
            if not rang:
                select.select([self.connection.fileno(), self._waker.read_end], [], [], timeout)
                self._waker.clear()
                rang = self._drain()
        return rang

    def _drain(self) -> set[str]:
        return {note.payload for note in self.connection.notifies(timeout=0)}

    def close(self) -> None:
        self.connection.close()
