"""Locks on tables that the application uses: asked for briefly, given up at the first refusal, and who is in
the way is named.

Whoever waits for a table's lock holds up all who come after. So an attempt waits ATTEMPT_SECONDS at most, for
one table, with no other lock in hand: further tables (a change of a partitioned table's row trigger takes
the locks of all its partitions) must be free at one moment. A session that waits with nothing in hand is in
no deadlock. Where somebody has been in the way for long, nothing is asked for at all.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

import psycopg
from loguru import logger
from psycopg import sql

from freshvec.backoff import Backoff
from freshvec.db import Connection, Session, queries, quoted, quoted_name
from freshvec.errors import FreshvecError, LockedError

_SQL = queries("source/locks")
ATTEMPT_SECONDS = 0.08  # what follows in the same transaction takes some time, too
# After which Postgres ends a transaction that hears nothing from this process: one that only reads is in the
# way of DDL alone, and a loaded machine may stand still for a second.
_PAUSE, _READING_PAUSE = "1s", "5s"
_LONG_SECONDS = 1.0  # a transaction of this age will hardly end during an attempt
_POLL_SECONDS = 0.001
_SHOWN = 60  # characters of a query
# So long that who had to wait has ended before the next attempt.
FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 0.5
_SAY_SECONDS = 5.0

Mode = Literal["ACCESS SHARE", "SHARE ROW EXCLUSIVE", "ACCESS EXCLUSIVE"]
Name = tuple[str, str]
T = TypeVar("T")

_AUTOVACUUM = "autovacuum"
_VACUUM = "ShareUpdateExclusiveLock"
_WRITERS = ["RowExclusiveLock", _VACUUM, "ShareLock", "ShareRowExclusiveLock", "ExclusiveLock"]
_CONFLICTS: dict[Mode, list[str]] = {
    "ACCESS SHARE": ["AccessExclusiveLock"],
    "SHARE ROW EXCLUSIVE": [*_WRITERS, "AccessExclusiveLock"],
    "ACCESS EXCLUSIVE": ["AccessShareLock", "RowShareLock", *_WRITERS, "AccessExclusiveLock"],
}


@dataclass(frozen=True)
class Holder:
    """Who holds a table, or waits for it and comes first.

    What this role may not see of other sessions is empty or None.
    """

    table: Name
    mode: str
    pid: int | None
    application: str
    user: str
    prepared: str | None
    since: str | None
    seconds: float | None
    state: str
    query: str

    @property
    def is_there_for_long(self) -> bool:
        return (self.seconds or 0.0) > _LONG_SECONDS

    @property
    def may_be_autovacuum(self) -> bool:
        """Whether it may give way. Who may not see more of a session sees its lock."""
        return self.mode == _VACUUM and (self.application == _AUTOVACUUM or not self.state)

    def __str__(self) -> str:
        if self.pid is None:
            return f"prepared transaction {self.prepared!r} of {self.user}, prepared at {self.since} UTC"
        known = [f"pid {self.pid}", self.user and f"user {self.user}"]
        known.append(f"in a transaction since {self.since} UTC" if self.since else "")
        shown = " ".join(self.query.split())
        shown = shown[:_SHOWN] + "…" * (len(shown) > _SHOWN)
        known.append(f'{"last ran" if self.state.startswith("idle") else "runs"} "{shown}"' if shown else "")
        return f"{self.application or 'a session'} ({', '.join(filter(None, known))})"


@contextmanager
def attempt(
    connection: Session, tables: Sequence[Name], mode: Mode, seconds: float = ATTEMPT_SECONDS
) -> Iterator[None]:
    """A transaction that waits for no lock longer than so many seconds, and that Postgres ends where this
    process is stalled, or cut off, with locks in hand.

    Raises LockedError, which names who holds one of `tables` against `mode`.
    """
    try:
        with connection.transaction():
            wait_at_most(connection, seconds)
            longest = sql.Literal(_READING_PAUSE if mode == "ACCESS SHARE" else _PAUSE)
            connection.execute(sql.SQL(_SQL["no_pauses"]).format(longest=longest))
            yield
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
        raise _refused(tables, holders(connection, tables, mode)) from error


@contextmanager
def held(connection: Connection, tables: Sequence[Name], mode: Mode) -> Iterator[None]:
    """A transaction that holds the locks of these tables. Raises what `attempt` and `take` raise."""
    with attempt(connection, tables, mode):
        take(connection, tables, mode)
        yield


def wait_at_most(connection: Session, seconds: float) -> None:
    """For any lock, for the rest of the transaction."""
    wait = sql.Literal(f"{seconds * 1000:.0f}ms")
    connection.execute(sql.SQL(_SQL["wait_at_most"]).format(wait=wait))


def with_partitions(connection: Connection, oid: int) -> list[Name]:
    """A table, and its partitions if it has any: Postgres takes all their locks to change a row trigger."""
    return connection.execute(_SQL["with_partitions"], {"oid": oid}).fetchall()


def take(connection: Connection, tables: Sequence[Name], mode: Mode) -> None:
    """Lock these tables, as far as they are there, in the transaction of an `attempt`.

    Raises LockedError, at once where somebody has been in the way for long, and LockNotAvailable, which
    `attempt` translates. Raises InsufficientPrivilege for a role that has not the owner's rights.
    """
    found = connection.execute(_SQL["existing"], {"tables": [_text(name) for name in tables]}).fetchall()
    for _, name, is_owner in found:
        if not is_owner:
            raise psycopg.errors.InsufficientPrivilege(f"must be owner of table {name}")
    there = holders(connection, tables, mode)
    if any(holder.is_there_for_long for holder in there):
        raise _refused(tables, there)
    names = [(schema, name) for schema, name, _ in found]
    begun = time.monotonic()
    if len(names) > 1 and _lock_free(connection, names, mode, begun + ATTEMPT_SECONDS / 2):
        return
    # The one to wait for is the busiest. The others must be free meanwhile.
    busy = Counter(holder.table for holder in there)
    names.sort(key=lambda name: -busy[name])
    if names:
        _lock(connection, names[:1], mode)
    if len(names) > 1 and not _lock_free(connection, names[1:], mode, begun + ATTEMPT_SECONDS):
        raise psycopg.errors.LockNotAvailable("some partitions are in use")


def take_free(connection: Session, tables: Sequence[Name], mode: Mode) -> None:
    """Lock these tables at a moment when nobody has them, in the transaction of an `attempt`. Nobody waits
    for an attempt that fails.

    Raises LockNotAvailable, which `attempt` translates.
    """
    if not _lock_free(connection, tables, mode, time.monotonic() + ATTEMPT_SECONDS):
        raise psycopg.errors.LockNotAvailable("they are in use")


def _lock_free(connection: Session, names: Sequence[Name], mode: Mode, deadline: float) -> bool:
    """Lock these tables at a moment when all of them are free, if there is one before the deadline."""
    while True:
        try:
            with connection.transaction():
                _lock(connection, names, mode, at_once=True)
            return True
        except psycopg.errors.LockNotAvailable:
            if time.monotonic() > deadline:
                return False
        time.sleep(_POLL_SECONDS)


def _lock(connection: Session, names: Sequence[Name], mode: str, *, at_once: bool = False) -> None:
    """Without the descendants: which of them are needed is the caller's to say.

    Raises LockedError where one of them was dropped or renamed meanwhile.
    """
    only = sql.SQL(", ").join(sql.SQL("ONLY {}").format(quoted(*name)) for name in names)
    nowait = sql.SQL("NOWAIT" if at_once else "")
    try:
        connection.execute(sql.SQL(_SQL["lock"]).format(tables=only, mode=sql.SQL(mode), nowait=nowait), ())
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
        raise LockedError(".".join(names[0]), f"{error.diag.message_primary}", "Try it again.") from error


def holders(connection: Session, tables: Sequence[Name], mode: Mode) -> list[Holder]:
    """Who is in the way of such a lock on these tables now."""
    given = {"tables": [_text(table) for table in tables], "modes": _CONFLICTS[mode]}
    rows = connection.execute(_SQL["holders"], given).fetchall()
    return [Holder((row[0][0], row[0][1]), *row[1:]) for row in rows]


def _refused(tables: Sequence[Name], holders: list[Holder]) -> LockedError:
    vacuumed = tuple({holder.table for holder in holders if holder.may_be_autovacuum})
    if not holders:
        problem = f"its lock was not to be had within {ATTEMPT_SECONDS * 1000:.0f} ms"
        return LockedError(".".join(tables[0]), problem, "Its statements left no gap; try again.")
    first, others = holders[0], {holder.pid for holder in holders} - {holders[0].pid}
    more = f", and {len(others)} more" if others else ""
    remedy = "Wait until that has ended, or end it."
    return LockedError(".".join(first.table), f"{first} is in the way{more}", remedy, vacuumed)


def patiently(connection: Connection, act: Callable[[], T], seconds: float) -> T:
    """What `act` returns. While somebody is in the way or changes the table it is tried again, for so many
    seconds, and said.

    Raises LockedError, or another error of its, when the time is over.
    """
    deadline = time.monotonic() + seconds
    pauses = Backoff(first=FIRST_PAUSE, cap=_LONGEST_PAUSE)
    said_at = -_SAY_SECONDS
    while True:
        try:
            return act()
        except FreshvecError as error:
            now = time.monotonic()
            if now >= deadline or not error.retryable or connection.broken:
                raise
            if now - said_at >= _SAY_SECONDS:
                logger.info("{} Trying again for {:.0f} s.", error, deadline - now)
                said_at = now
            vacuumed = error.vacuumed if isinstance(error, LockedError) else ()
            for table in vacuumed:
                _let_vacuum_give_way(connection, table, deadline - now)
            if not vacuumed:
                connection.execute(_SQL["pause"], {"seconds": min(pauses.next_delay(), deadline - now)})


def _let_vacuum_give_way(connection: Connection, table: Name, seconds: float) -> None:
    """Wait in a mode that holds up no writer until Postgres cancels an autovacuum that is in the way; not
    longer than so many seconds.

    It does so for whoever has waited `deadlock_timeout`, longer than an attempt; but not where the vacuum
    prevents a wraparound, and not with a vacuum that a person runs.
    """
    try:
        with connection.transaction():
            connection.execute(_SQL["await_vacuum"], {"seconds": seconds})
            _lock(connection, [table], "SHARE UPDATE EXCLUSIVE")
    except psycopg.errors.LockNotAvailable:
        return


def _text(name: Name) -> str:
    return quoted_name(*name)
