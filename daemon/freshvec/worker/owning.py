"""Which syncs a worker keeps: those that nobody keeps, or with `daemon.share` a part of each. Asked every
second, by one query for all of them."""

import math
import time
from collections.abc import Sequence

from loguru import logger

from freshvec.capture.bell import Listener
from freshvec.errors import DatabaseError
from freshvec.worker import ownership, shares
from freshvec.worker.keeper import Keeper

_BALANCE_SECONDS = 1.4  # between looks at who shares the syncs
_STANDBY_SECONDS = 1.0  # between looks whether a sync has lost its owner


class Owning:
    """On the main thread, with the listener's connection."""

    def __init__(self, *, is_shared: bool) -> None:
        self._begin = shares.join if is_shared else ownership.own
        self.look_now()

    def look_now(self) -> None:
        """The connection is another one."""
        self._own_due = self._balance_due = 0.0

    def tend(self, listener: Listener, keepers: Sequence[Keeper]) -> None:
        """Begin with what can be had, and have a fair share of what is kept together with others."""
        wanting = [keeper for keeper in keepers if keeper.wants_ownership]
        if wanting and time.monotonic() >= self._own_due:
            self._own(listener, wanting)
        sharing = {keeper.sync.name: keeper for keeper in keepers if keeper.is_sharing}
        if sharing and time.monotonic() >= self._balance_due:
            self._balance(listener, sharing)

    def patience(self, keepers: Sequence[Keeper]) -> float:
        """Seconds until something is due."""
        due = [math.inf]
        if any(keeper.wants_ownership for keeper in keepers):
            due.append(self._own_due)
        if any(keeper.is_sharing for keeper in keepers):
            due.append(self._balance_due)
        return min(due) - time.monotonic()

    def _own(self, listener: Listener, wanting: Sequence[Keeper]) -> None:
        owned = self._begin(listener.connection, [keeper.sync.name for keeper in wanting])
        for keeper in wanting:
            if keeper.sync.name in owned:
                keeper.own(listener.connection)
            else:
                keeper.stand_by(listener.connection)
        self._own_due, self._balance_due = time.monotonic() + _STANDBY_SECONDS, 0.0

    def _balance(self, listener: Listener, sharing: dict[str, Keeper]) -> None:
        self._balance_due = time.monotonic() + _BALANCE_SECONDS
        try:
            found = shares.look(listener.connection, list(sharing))
        except DatabaseError as error:  # as while our schema is dropped and made again
            if listener.connection.broken:
                raise
            logger.info("{}", error)
            return
        for name, seen in found.items():
            if seen.ended:
                logger.warning("{} sessions of workers that have stopped were ended", seen.ended)
            try:
                sharing[name].balance(seen, listener)
            except DatabaseError as error:  # of one sync: the others go on
                if listener.connection.broken:
                    raise
                sharing[name].failed(error, listener)
        listener.spoke()
