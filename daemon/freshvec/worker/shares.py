"""Sharing: workers that keep one sync together, each the shards that it holds the locks of.

Who shares a sync holds its lock in shared mode, so a look at the locks tells who does. The server ends the
session of one that has said nothing for 2.5 seconds, and with it go its locks, though a worker that was
stopped does not know it (pipeline/epoch.py keeps it from writing). Every second or so each worker compares
what it has with its fair share: it gives up what is over, and takes what is free. Nothing is written as long
as nobody comes or goes. Proved in shares.pml.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from freshvec.db import LEAD_LOCK_CLASS, LOCK_CLASS, SHARD_LOCK_CLASS, Connection, queries, translated
from freshvec.errors import DatabaseError
from freshvec.pipeline import epoch
from freshvec.pipeline.progress import Progress
from freshvec.pipeline.share import SHARDS, Share, mask
from freshvec.pooler import process_of

_SQL = queries("worker/shares")


@dataclass(frozen=True)
class Seen:
    """A sync as it is shared now: its id, None while it is not applied; the sessions that share it; whether
    one of them leads; whether one that shared it is gone without a word; whether it is walked."""

    id: int | None
    pids: tuple[int, ...]
    is_led: bool
    has_dead: bool
    is_walked: bool
    ended: int = 0  # sessions of stopped workers, by this look


def join(connection: Connection, names: list[str]) -> set[str]:
    """Share those of the syncs that no worker keeps alone; gives their names."""
    with translated("share", "the syncs"):
        found = connection.execute(_SQL["join"], {"class": LOCK_CLASS, "names": names})
        return {name for (name,) in found}


def look(connection: Connection, names: list[str]) -> dict[str, Seen]:
    """How these are shared: one query for all of them."""
    with translated("look at", "who shares the syncs"):
        given = {"class": LOCK_CLASS, "lead_class": LEAD_LOCK_CLASS, "names": names}
        found = connection.execute(_SQL["look"], given)
        return {name: Seen(number, tuple(pids), *rest) for name, number, pids, *rest in found}


class Shares:
    """What this worker has of one sync. Used on the main thread, with the listener's connection."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._told = (0, False)  # rows, and whether there were some lately, when the database was last told
        self.lose()

    def lose(self) -> None:
        """The connection is gone, and the locks with it."""
        self.leads = False
        self.seen: Seen | None = None
        self._shards: set[int] = set()
        self._id: int | None = None  # the sync's, while shards are owned
        self._pid: int | None = None  # of the session, once asked

    def begin(self, connection: Connection, number: int) -> Share:
        """What a pipeline that begins is to keep: also what can be had now. `number` is the sync's id."""
        self._gain(connection, number)
        return self._share(connection)

    def _share(self, connection: Connection) -> Share:
        return Share(mask(self._shards), self.leads, self._process(connection))

    def notice(self, seen: Seen) -> bool:
        """Whether others share it now than at the last look."""
        before, self.seen = self.seen, seen
        return before is not None and before.pids != seen.pids

    def balance(self, connection: Connection, hand_over: Callable[[], None], *, may_gain: bool) -> None:
        """Have a fair share. `hand_over` ends the pipeline, with its writes, before the share changes. Shards
        are of no use to a worker that has none."""
        if self.seen is not None and self.seen.has_dead:
            epoch.bury(connection, self._name)
        surplus = self._surplus(connection)
        if surplus:
            hand_over()
            self._give_up(connection, surplus)
        number = self.seen.id if self.seen and may_gain else None
        if self._lead(connection) or self._gain(connection, number):
            hand_over()

    def tell(self, connection: Connection, progress: Progress) -> None:
        """Let the database know what this worker has counted, if there is anything."""
        now = progress.snapshot()
        is_at_work = now.rows_per_second > 0  # over the last seconds: while that falls there is no news
        if (now.done, is_at_work) != self._told:
            self._told = now.done, is_at_work
            epoch.fold(connection, self._name, self._process(connection), now.rows_per_second)

    def _lead(self, connection: Connection) -> bool:
        """Lead, if nobody does; True where this worker does not know it yet."""
        if self.leads or (self.seen is not None and self.seen.is_led):
            return False
        with translated("lead those who share", f"sync {self._name!r}"):
            row = connection.execute(_SQL["lead"], self._lock(LEAD_LOCK_CLASS)).fetchone()
        self.leads = bool(row and row[0])
        return self.leads

    def _surplus(self, connection: Connection) -> set[int]:
        """Shards beyond the fair share."""
        return set(sorted(self._shards)[self._fair(connection) :])

    def _gain(self, connection: Connection, number: int | None) -> bool:
        """Own free shards, up to the fair share; True where there are some. `number` is the sync's id."""
        if number is None:
            return False
        if self._shards and number != self._id:  # it was removed, and applied again
            self._unlock(connection, self._shards)
            self._shards = set()
        most = self._fair(connection) - len(self._shards)
        if most <= 0:
            return False
        free = sorted(set(range(SHARDS)) - self._shards)
        first = self._place(connection) * SHARDS // max(1, self._members)  # not all try for the same ones
        given = {"shards": free[first:] + free[:first], "most": most}
        self._id = number
        asked = given | {"id": number, "class": SHARD_LOCK_CLASS}
        try:
            with translated("share", f"sync {self._name!r}"):
                gained = {shard for (shard,) in connection.execute(_SQL["gain"], asked)}
        except DatabaseError:  # what it had locked by then would be this session's, and nobody's to read
            with suppress(DatabaseError):
                self._unlock(connection, set(free))
            raise
        self._shards |= gained
        return bool(gained)

    def _give_up(self, connection: Connection, shards: set[int]) -> None:
        """For a worker whose pipeline has ended. What it may yet send is not written: only then may others
        own them."""
        left = Share(mask(self._shards - shards), self.leads, self._process(connection))
        epoch.resize(connection, self._name, left)  # where it fails, all of them are still this worker's
        self._shards -= shards
        self._unlock(connection, shards)

    def leave(self, connection: Connection) -> None:
        """Share it no more, for a worker whose pipeline has ended."""
        with suppress(DatabaseError):  # else another one takes its row away; the locks are what counts
            epoch.leave(connection, self._name, self._process(connection))
        self._unlock(connection, self._shards)
        with translated("leave", f"sync {self._name!r}"):
            if self.leads:
                connection.execute(_SQL["follow"], self._lock(LEAD_LOCK_CLASS))
            connection.execute(_SQL["leave"], self._lock(LOCK_CLASS))
        self.lose()

    def _unlock(self, connection: Connection, shards: set[int]) -> None:
        given = {"shards": sorted(shards), "id": self._id, "class": SHARD_LOCK_CLASS}
        if shards:
            with translated("share", f"sync {self._name!r}"):
                connection.execute(_SQL["give_up"], given)

    @property
    def _members(self) -> int:
        return len(self.seen.pids) if self.seen else 0

    def _place(self, connection: Connection) -> int:
        """Of this worker among those who share."""
        own = self._process(connection)
        return sum(pid < own for pid in self.seen.pids) if self.seen else 0

    def _process(self, connection: Connection) -> int:
        """The server's, of this worker's session: what a pool announces as it is a number of its own."""
        if self._pid is None:
            with translated("share", f"sync {self._name!r}"):
                self._pid = process_of(connection)
        return self._pid

    def _fair(self, connection: Connection) -> int:
        """How many shards it should have: the first ones have one more where they cannot all have as many."""
        if not self._members:
            return len(self._shards)
        least, more = divmod(SHARDS, self._members)
        return least + (self._place(connection) < more)

    def _lock(self, lock_class: int) -> dict[str, object]:
        return {"class": lock_class, "name": self._name}
