"""The epoch: which owner's transactions may write.

A worker that was stopped, and declared dead, may wake and not know that another has taken over; one with an
older file may not know that another definition was applied. So each taking of ownership raises the sync's
epoch, each new binding its generation, both under the sync's lock; and every transaction of ours that writes
takes that lock in shared mode, and looks whether both are still its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from freshvec.db import WRITE_LOCK_CLASS, Session, queries, translated
from freshvec.errors import SupersededError

_SQL = queries("pipeline/epoch")


@dataclass(frozen=True)
class Epoch:
    """One owner's time, of one generation of a sync."""

    name: str
    generation: int
    number: int

    def check(self, connection: Session) -> None:
        """In a transaction that holds the sync's lock: raise SupersededError when another has taken over."""
        row = connection.execute(_SQL["current"], {"name": self.name}).fetchone()
        if row != (self.generation, self.number):
            raise SupersededError(self.name)

    @contextmanager
    def transaction(self, connection: Session, *, alone: bool = False) -> Iterator[None]:
        """A transaction that may write: under the lock, and only if it is still this owner's time."""
        with connection.transaction():
            lock = {"class": WRITE_LOCK_CLASS, "name": self.name}
            connection.execute(_SQL["lock_alone" if alone else "lock"], lock)
            self.check(connection)
            yield


def take(connection: Session, name: str, generation: int) -> Epoch:
    """Begin a new epoch. Raises SupersededError when another generation has been applied."""
    with translated("own", f"sync {name!r}"), connection.transaction():
        connection.execute(_SQL["lock_alone"], {"class": WRITE_LOCK_CLASS, "name": name})
        row = connection.execute(_SQL["take"], {"name": name, "generation": generation}).fetchone()
    if row is None:
        raise SupersededError(name)
    return Epoch(name, generation, row[0])
