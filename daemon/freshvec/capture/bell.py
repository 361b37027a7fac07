"""The bell, as a worker hears it: LISTEN, waiting for news or a signal, and whether writers ring at all."""

import math
import select
import socket
import threading
import time
from collections import Counter, deque
from contextlib import suppress

import psycopg
from pydantic import SecretStr

from freshvec.db import BELL_LOCK_CLASS, Connection, connect, queries, translated

_SQL = queries("capture/bell")
_LOUD_SECONDS = 0.1
_SUSPECT, _LOUD = 4, 50  # notifications in that time: they may cost, they do cost
_FIRST_PAUSE, _LONGEST_PAUSE = 0.025, 0.1  # seconds between looks whether they do
_SILENCE_SECONDS = 1.5  # of the 2.5 after which the server ends a session that is leased
_USAGE_SECONDS = 1.0  # that an answer about the notification queue holds: one for all syncs at a sweep
LET_GO = "-"  # before a sync's name: who had its bell has it no more, so the others are to poll
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


class Bell:
    """Whether one sync's writers ring, proved in bell.pml. Used on the main thread, with the listener's
    connection.

    Whoever keeps a sync takes its bell: an advisory lock, exclusive. A writer that gets the same lock shared
    knows that nobody wants to be rung, and holds it until its transaction has ended; one that does not get it
    notifies. So the bell can be taken only when no such writer is under way, and what the keeper reads after
    that is all that was not rung. A notification holds a lock of the whole cluster until its commit has
    ended. So a keeper for whom writers wait for one another lets the bell go, and polls.
    """

    def __init__(self, name: str) -> None:
        self.is_taken = False
        self._lock = {"class": BELL_LOCK_CLASS, "name": name}
        self._recent: deque[tuple[float, int]] = deque()  # when it rang, how many times
        self._look_due = 0.0
        self._pause = _FIRST_PAUSE

    def take(self, connection: Connection) -> bool:
        """Be rung from now on, unless a writer is under way who will not. What is there must be read after
        this."""
        with translated("take the bell of", f"sync {self._lock['name']!r}"):
            row = connection.execute(_SQL["take"], self._lock).fetchone()
        self.is_taken = bool(row and row[0])
        return self.is_taken

    def is_anothers(self, connection: Connection) -> bool:
        """Whether another worker that shares the sync has it, so that all of them are rung."""
        with translated("look at the bell of", f"sync {self._lock['name']!r}"):
            row = connection.execute(_SQL["is_taken"], self._lock).fetchone()
        return bool(row and row[0])

    def release(self, connection: Connection, *, is_shared: bool = False) -> None:
        """Be rung no more. Those who share the sync are told."""
        if self.is_taken:
            self.is_taken = False
            with translated("release the bell of", f"sync {self._lock['name']!r}"):
                connection.execute(_SQL["release"], self._lock)
                if is_shared:
                    connection.execute(_SQL["tell"], {"note": f"{LET_GO}{self._lock['name']}"})

    def lose(self) -> None:
        """The connection is gone, and the lock with it."""
        self.is_taken = False

    def is_too_loud(self, times: int, connection: Connection) -> bool:
        """It rang so many times: whether polling would cost the writers less."""
        now = time.monotonic()
        self._recent.append((now, times))
        while self._recent[0][0] < now - _LOUD_SECONDS:
            self._recent.popleft()
        rang = sum(count for _, count in self._recent)
        if rang <= _SUSPECT:
            self._pause = _FIRST_PAUSE
        if not self.is_taken or rang <= _SUSPECT or (rang <= _LOUD and now < self._look_due):
            return False
        self._look_due = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)  # the look takes time from who edits and waits
        return rang > _LOUD or self._do_writers_wait(connection)

    def _do_writers_wait(self, connection: Connection) -> bool:
        """One who edits and waits for the result rings often, too, but holds up nobody."""
        with translated("look at", "the writers"):
            row = connection.execute(_SQL["do_writers_wait"]).fetchone()
        return bool(row and row[0])


class Listener:
    """Listens on one connection of its own. When that connection is lost, so are its locks: the owner steps
    back."""

    def __init__(self, url: SecretStr, waker: Waker, *, is_leased: bool = False) -> None:
        self.connection: Connection = connect(url, "listener")
        self._waker = waker
        self._spoke_at = time.monotonic()
        with translated("listen on", "the database"):
            for setting in ("stay", "hurry") if is_leased else ("stay",):
                self.connection.execute(_SQL[setting])
            self.connection.execute(_SQL["listen"])
            row = self.connection.execute(_SQL["may_ring"]).fetchone()
        self.may_ring = bool(row and row[0])
        self._is_closed = threading.Event()
        if is_leased:
            threading.Thread(target=self._beat, name="beat", daemon=True).start()
        self._is_filling = False  # the notification queue, at the last look
        self._looked_at = -math.inf

    def spoke(self) -> None:
        """The server has heard of this worker."""
        self._spoke_at = time.monotonic()

    def _beat(self) -> None:
        """Give the server a sign of life where the main thread is at something that takes long, as loading a
        model is. On a thread of its own; the main one finds out where the session is gone."""
        while not self._is_closed.wait(_SILENCE_SECONDS / 2):
            if time.monotonic() - self._spoke_at > _SILENCE_SECONDS:
                with suppress(psycopg.Error):
                    self.connection.execute(_SQL["beat"])
                self.spoke()

    def wait(self, timeout: float) -> Counter[str]:
        """How many times each sync rang; empty after `timeout` seconds or when woken."""
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

    def _drain(self) -> Counter[str]:
        return Counter(note.payload for note in self.connection.notifies(timeout=0))

    def is_queue_filling(self) -> bool:
        """Whether some session has not read its notifications for so long that writers soon ring no more."""
        if time.monotonic() - self._looked_at >= _USAGE_SECONDS:
            with translated("look at", "the notification queue"):
                row = self.connection.execute(_SQL["is_queue_filling"]).fetchone()
            self._is_filling, self._looked_at = bool(row and row[0]), time.monotonic()
        return self._is_filling

    def close(self) -> None:
        self._is_closed.set()
        self.connection.close()
