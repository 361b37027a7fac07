"""Building and dropping indexes: on a session of its own, one at a time, whatever else goes on.

A build is the server's. Where the worker ends, or is killed, it goes on there, and whoever comes meanwhile
sees who is at it. What ended otherwise has left an invalid index, which is dropped and built again.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from loguru import logger
from pydantic import SecretStr

from freshvec.db import INDEX_LOCK_CLASS, Connection, connect, queries, translated
from freshvec.errors import DatabaseError, FreshvecError
from freshvec.source.bound import BoundSync
from freshvec.target import index
from freshvec.target.size import index_bytes

_SQL = queries("target/index")
_OLD = "Upgrade pgvector to 0.7 or later: ALTER EXTENSION vector UPDATE."
_REMEDIES = {
    "42704": _OLD,  # no such access method, operator class or type
    "42883": _OLD,  # no such function
    "53100": "Make room on the server's disk; where it speaks of shared memory, give its container a larger "
    "/dev/shm, or write a smaller memory_mb in index.",
}
_INTERRUPTED_SECONDS, _POLL_SECONDS = 1.0, 0.02


class Build:
    """What is being done to the indexes of one sync, on a thread that keeps no process alive.

    `error` is what ended it, None where everything was done or another session is at it.
    """

    def __init__(self, url: SecretStr, bound: BoundSync, on_end: Callable[[], None]) -> None:
        self.bound = bound
        self.error: FreshvecError | None = None
        self._url = url
        self._on_end = on_end
        self._over = threading.Event()
        threading.Thread(target=self._run, name="index", daemon=True).start()

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    def _run(self) -> None:
        try:
            with connect(self._url, "index") as connection:
                bring_about(connection, self.bound)
        except FreshvecError as error:
            self.error = error
        except Exception as error:
            self.error = FreshvecError(
                "index", f"sync {self.bound.name!r}", f"{type(error).__name__}: {error}"
            )
        finally:
            self._over.set()
            self._on_end()


class Builds:
    """Of one worker: one at a time, since each may take all the memory and processors it is given."""

    def __init__(self, url: SecretStr) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._under_way: Build | None = None

    def begin(self, bound: BoundSync, on_end: Callable[[], None]) -> Build | None:
        """Begin to do all that is to be done for this sync; None where another's turn has not ended."""
        with self._lock:
            if self._under_way is not None and not self._under_way.is_over:
                return None
            self._under_way = Build(self._url, bound, on_end)
            return self._under_way


def bring_about(connection: Connection, bound: BoundSync) -> bool:
    """Do all that is to be done about a sync's indexes; True where something was. The session is not to be
    used for anything else afterwards.

    Does nothing where another session is at it. Raises DatabaseError.
    """
    try:
        with translated("index", f"sync {bound.name!r}"), _claimed(connection, bound.name) as is_ours:
            return is_ours and _act(connection, bound)
    except DatabaseError as error:
        remedy = _REMEDIES.get(getattr(error.__cause__, "sqlstate", None) or "", error.remedy)
        raise DatabaseError(
            error.operation, error.subject, error.problem, remedy, retryable=error.retryable
        ) from error.__cause__


def _act(connection: Connection, bound: BoundSync) -> bool:
    """Step by step; True where there was one."""
    _prepare(connection, bound)
    has_acted = False
    seen = index.look(connection, bound)
    while seen is not None and seen.builder is None and (step := index.next_step(bound, seen)):
        _carry_out(connection, bound, step, seen.vectors)
        has_acted = True
        seen = index.look(connection, bound)
    return has_acted


def drop_ours(connection: Connection, name: str) -> list[str]:
    """Drop the indexes that freshvec made for a sync; gives their names. Raises FreshvecError where another
    session is at them, and DatabaseError."""
    with translated("drop the index of", f"sync {name!r}"), _claimed(connection, name) as is_ours:
        if not is_ours:
            problem = "another session builds or drops it"
            raise FreshvecError("drop the index of", f"sync {name!r}", problem, "Wait until that has ended.")
        connection.execute(_SQL["prepare"], {"memory": None})
        found = connection.execute(_SQL["ours"], {"name": name}).fetchall()
        for schema, each in found:
            connection.execute(index.dropping(schema, each), ())
        return [each for _, each in found]


def interrupt(connection: Connection, name: str) -> None:
    """End what another session is doing to a sync's indexes, before the target itself is changed.

    Where this role may not, the target's lock names who is in the way.
    """
    given = {"class": INDEX_LOCK_CLASS, "name": name}
    deadline = time.monotonic() + _INTERRUPTED_SECONDS
    while time.monotonic() < deadline:
        row = connection.execute(_SQL["interrupt"], given).fetchone()
        if not (row and row[0]):
            return
        time.sleep(_POLL_SECONDS)


def keep_trouble(connection: Connection, name: str, trouble: str | None) -> None:
    """Let `status` say why the declared index is not there; None once it is."""
    connection.execute(_SQL["trouble"], {"name": name, "trouble": trouble})


def progress(
    connection: Connection, bound: BoundSync, name: str
) -> tuple[str, float | None, int | None] | None:
    """The phase of an index that is being built, the share of it that is done, and the session that it waits
    for."""
    row = connection.execute(_SQL["progress"], {"name": bound.name, "index": name}).fetchone()
    return None if row is None else (row[0], row[1], row[2])


@contextmanager
def _claimed(connection: Connection, name: str) -> Iterator[bool]:
    """Whether nobody else is at the sync's indexes; then nobody is, until the end."""
    given: dict[str, Any] = {"class": INDEX_LOCK_CLASS, "name": name}
    row = connection.execute(_SQL["claim"], given).fetchone()
    if not (row and row[0]):
        yield False
        return
    try:
        yield True
    finally:
        if not connection.broken:
            connection.execute(_SQL["unclaim"], given)


def _prepare(connection: Connection, bound: BoundSync) -> None:
    declared = bound.sync.index
    memory = f"{declared.memory_mb}MB" if declared and declared.memory_mb else None
    connection.execute(_SQL["prepare"], {"memory": memory})


def _carry_out(connection: Connection, bound: BoundSync, step: index.Step, vectors: int) -> None:
    logger.info("sync {}: {}s index {}: {}", bound.name, step.verb, step.name, step.reason)
    if step.verb == "drop":
        connection.execute(index.dropping(bound.vectors_name[0], step.name), ())
        return
    _warn_of_memory(connection, bound, vectors)
    begun = time.monotonic()
    connection.execute(index.building(bound, vectors), ())
    seconds = time.monotonic() - begun
    logger.info("sync {}: index {} is built, after {:.0f} s", bound.name, step.name, seconds)


def _warn_of_memory(connection: Connection, bound: BoundSync, vectors: int) -> None:
    """pgvector says only amid the build that a graph does not fit."""
    declared = bound.sync.index
    assert declared is not None
    (has,) = connection.execute(_SQL["memory"]).fetchone() or (0,)
    needed = vectors * index_bytes(bound.model.dimension, bound.sync.target.type, declared)
    if declared.type == "hnsw" and needed > has:
        logger.warning(
            "sync {}: its graph takes about {:,.0f} MB, and maintenance_work_mem is {:,.0f} MB: the build is "
            "several times as slow; write memory_mb = {:.0f} in index where the server has as much",
            bound.name,
            needed / 2**20,
            has / 2**20,
            1.2 * needed / 2**20 + 1,
        )
