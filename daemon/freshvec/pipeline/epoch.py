"""The epoch: which owner's transactions may write.

A worker that was stopped, and declared dead, may wake and not know that another has taken over; one with an
older file may not know that another definition was applied. So each taking of ownership raises the sync's
epoch, each new binding its generation, both under the sync's lock; and every transaction of ours that writes
takes that lock in shared mode, and looks whether both are still its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg

from freshvec.db import WRITE_LOCK_CLASS, Session, queries, translated
from freshvec.errors import SupersededError

_SQL = queries("pipeline/epoch")


@dataclass(frozen=True)
class Epoch:
    """One owner's time, of one generation of a sync."""

    name: str
    generation: int
    number: int

    @contextmanager
    def transaction(self, connection: Session, *, alone: bool = False) -> Iterator[None]:
        """A transaction that may write: under the lock, and only if it is still this owner's time.

        Whether it is, is asked before all that is executed inside, and looked at after it, so that everything
        travels together. Raises SupersededError, and nothing was written.
        """
        with connection.transaction():
            lock = {"class": WRITE_LOCK_CLASS, "name": self.name}
            connection.execute(_SQL["lock_alone" if alone else "lock"], lock)
            current = connection.execute(_SQL["current"], {"name": self.name})
            try:
                yield
            except psycopg.Error as error:  # of another owner's doing, perhaps
                with suppress(psycopg.Error):  # nor is that known then
                    self._check(current, error)
                raise
            self._check(current)

    def _check(self, current: psycopg.Cursor[tuple[Any, ...]], cause: Exception | None = None) -> None:
        if current.fetchone() != (self.generation, self.number):
            raise SupersededError(self.name) from cause


def take(connection: Session, name: str, generation: int) -> Epoch:
    """Begin a new epoch. Raises SupersededError when another generation has been applied."""
    with translated("own", f"sync {name!r}"), connection.transaction():
        connection.execute(_SQL["lock_alone"], {"class": WRITE_LOCK_CLASS, "name": name})
        row = connection.execute(_SQL["take"], {"name": name, "generation": generation}).fetchone()
    if row is None:
        raise SupersededError(name)
    return Epoch(name, generation, row[0])
