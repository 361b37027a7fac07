"""The epoch: which owner's transactions may write.

A worker that was stopped, and declared dead, may wake and not know that another has taken over; one with an
older file may not know that another definition was applied. So each taking of ownership raises an epoch: that
of the sync for a worker alone, that of its own row in freshvec.member for one that shares; each new binding
raises the sync's generation. All of it happens under the sync's lock; and every transaction of ours that
writes takes that lock in shared mode, and looks whether both are still its own. Whoever gets a shard that
somebody else is noted to own takes that one's row away first.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from freshvec.db import LOCK_CLASS, WRITE_LOCK_CLASS, Session, queries, translated
from freshvec.errors import SupersededError
from freshvec.pipeline.share import WHOLE, Share

_SQL = queries("pipeline/epoch")
_NOBODY = -1


@dataclass(frozen=True)
class Walk:
    """The last walk, as a writing transaction finds it. Readings up to `fence` are from before it."""

    fence: int
    is_under_way: bool


@dataclass(frozen=True)
class Epoch:
    """One owner's time, of one generation of a sync."""

    name: str
    generation: int
    number: int
    share: Share = field(default=WHOLE)

    @property
    def pid(self) -> int | None:
        """The member's, None for a worker that keeps the sync alone."""
        return self.share.pid

    def check(self, connection: Session) -> Walk:
        """In a transaction that holds the sync's lock: how the sync is walked. Raises SupersededError when
        another owner has taken over."""
        query = _SQL["current" if self.share.is_whole else "current_shared"]
        row = connection.execute(query, {"name": self.name, "pid": self.share.pid}).fetchone()
        if row is None or row[:2] != (self.generation, self.number):
            raise SupersededError(self.name)
        return Walk(*row[2:])

    @contextmanager
    def transaction(self, connection: Session, *, alone: bool = False) -> Iterator[Walk]:
        """A transaction that may write: under the lock, and only if it is still this owner's time."""
        with connection.transaction():
            lock = {"class": WRITE_LOCK_CLASS, "name": self.name}
            connection.execute(_SQL["lock_alone" if alone else "lock"], lock)
            yield self.check(connection)


def take(connection: Session, name: str, generation: int, share: Share = WHOLE) -> Epoch:
    """Begin a new epoch. Raises SupersededError when another generation has been applied."""
    given = {"name": name, "generation": generation, "class": LOCK_CLASS}
    given |= {"pid": share.pid, "shards": share.shards, "leads": share.leads, "worker": worker_name()}
    with translated("own", f"sync {name!r}"), connection.transaction():
        connection.execute(_SQL["lock_alone"], {"class": WRITE_LOCK_CLASS, "name": name})
        connection.execute(_SQL["retire"], given)
        connection.execute(_SQL["free_ranges"], given)
        row = connection.execute(_SQL["take" if share.is_whole else "take_shared"], given).fetchone()
    if row is None:
        raise SupersededError(name)
    return Epoch(name, generation, row[0], share)


def resize(connection: Session, name: str, share: Share) -> None:
    """Own other shards, and write no more in the epoch before: for a worker whose pipeline has ended. Those
    that are given up may be unlocked after this."""
    given = {"name": name, "pid": share.pid, "shards": share.shards, "leads": share.leads}
    with translated("share", f"sync {name!r}"), connection.transaction():
        connection.execute(_SQL["lock_alone"], {"class": WRITE_LOCK_CLASS, "name": name})
        connection.execute(_SQL["resize"], given)


def leave(connection: Session, name: str, pid: int) -> None:
    """Own nothing any more, for a worker whose pipeline has ended; its ranges are free."""
    given = {"name": name, "pid": pid}
    with translated("leave", f"sync {name!r}"), connection.transaction():
        connection.execute(_SQL["lock_alone"], {"class": WRITE_LOCK_CLASS, "name": name})
        connection.execute(_SQL["leave"], given)
        connection.execute(_SQL["free_ranges"], given)


def bury(connection: Session, name: str) -> None:
    """Take away the rows of members whose sessions have ended, so that their ranges are free."""
    given = {"name": name, "class": LOCK_CLASS, "pid": _NOBODY, "shards": 0, "leads": False}
    with translated("share", f"sync {name!r}"), connection.transaction():
        connection.execute(_SQL["lock_alone"], {"class": WRITE_LOCK_CLASS, "name": name})
        connection.execute(_SQL["retire"], given)
        connection.execute(_SQL["free_ranges"], given)


def fold(connection: Session, name: str, pid: int, rows_per_second: float) -> None:
    """Add what a member has counted to what the sync shows."""
    given = {"name": name, "pid": pid, "rows_per_second": rows_per_second}
    with translated("count", f"sync {name!r}"):
        connection.execute(_SQL["fold"], given)


def worker_name() -> str:
    """What this worker is called where there are several."""
    return f"{socket.gethostname()}:{os.getpid()}"
