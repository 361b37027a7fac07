"""The bell, as a worker hears it: LISTEN on a direct connection, and waiting for news or a signal."""

import os
import select

from pydantic import SecretStr

from freshvec.db import Connection, connect, queries, translated

_SQL = queries("capture/bell")
DDL = ""  # rings in place of a sync's name after DDL on a table that is kept


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
    """Listens on one connection of its own. When that connection is lost, so are its locks: the owner steps
    back."""

    def __init__(self, url: SecretStr, waker: Waker) -> None:
        self.connection: Connection = connect(url, "listener")
        self._waker = waker
        with translated("listen on", "the database"):
            self.connection.execute(_SQL["stay"])
            self.connection.execute(_SQL["listen"])

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
