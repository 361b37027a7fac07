"""The bell, as a worker hears it: LISTEN on a connection, and waiting for news or a signal."""

import select
import socket

from pydantic import SecretStr

from freshvec.db import Connection, connect, queries, translated

_SQL = queries("capture/bell")
DDL = ""  # rings in place of a sync's name after DDL on a table that is kept


class Waker:
    """Interrupts a wait from another thread or from a signal handler."""

    def __init__(self) -> None:
        self._waiting, self._waking = socket.socketpair()
        self._waiting.setblocking(False)
        self._waking.setblocking(False)

    def fileno(self) -> int:
        """What becomes readable when it is time."""
        return self._waiting.fileno()

    def wake(self) -> None:
        try:
            self._waking.send(b"!")
        except OSError:
            pass  # full: the wait is as good as over; or closed: nobody waits any more

    def clear(self) -> None:
        try:
            self._waiting.recv(4096)
        except BlockingIOError:
            pass

    def close(self) -> None:
        self._waiting.close()
        self._waking.close()


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
                news = select.poll()  # not select(), which knows no descriptor beyond 1,023
                for source in (self.connection.fileno(), self._waker.fileno()):
                    news.register(source, select.POLLIN)
                news.poll(timeout * 1000)
                self._waker.clear()
                rang = self._drain()
        return rang

    def _drain(self) -> set[str]:
        return {note.payload for note in self.connection.notifies(timeout=0)}

    def close(self) -> None:
        self.connection.close()
