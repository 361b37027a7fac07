"""How quick the database answers, what keeps it busy, and whether its clock goes right."""

import statistics
import time
from collections.abc import Callable, Iterator

from freshvec.db import queries, quoted_name
from freshvec.doctor.finding import Finding, ok, warning
from freshvec.doctor.place import Place

_SQL = queries("doctor/load")
_ROUNDS = 15
_SLOW_MS = 5.0  # there and back; in one network it is under one
_SLOW_COMMIT_MS = 30.0
LONG_SECONDS = 600
MISSED = 100_000  # blocks, from which the share of those found in memory says something
_SKEW_SECONDS = 5.0


def speed(place: Place) -> Iterator[Finding]:
    """The way there and back, and a commit that waits for the disk, which a standby has none of."""
    connection = place.connection
    if connection.execute(_SQL["is_standby"]).fetchone() == (True,):
        return

    def commit() -> None:
        with connection.transaction():
            connection.execute(_SQL["commit_for_certain"])
            connection.execute(_SQL["write"])

    there = _median_ms(lambda: connection.execute(_SQL["nothing"]).fetchone(), _ROUNDS)
    written = _median_ms(commit, _ROUNDS // 3) - 3 * there  # BEGIN and two statements travel, too
    if there > _SLOW_MS:
        yield warning(
            "speed",
            f"the database is slow to answer: {there:.1f} ms there and back",
            "each batch takes several such ways, and a change is fresh only after them",
            "Run freshvec nearer to the database: in its network, or on its machine.",
        )
    if written > _SLOW_COMMIT_MS:
        yield warning(
            "speed",
            f"the database is slow to write: a commit takes {written:.1f} ms",
            "the disk is slow or busy, and the application's writes wait for it as well",
            "See which process writes (iostat -x 1, pg_stat_io); put pg_wal on a faster disk.",
        )
    if there <= _SLOW_MS and written <= _SLOW_COMMIT_MS:
        yield ok("speed", f"{there:.1f} ms there and back, {max(written, 0):.1f} ms for a commit")


def transactions(place: Place) -> Iterator[Finding]:
    """Old transactions, sessions that wait for locks, and vectors that do not fit into memory."""
    found = list(_old(place)) + list(_waiting(place)) + list(_missed(place))
    yield from found or [
        ok("load", "no old transaction, nobody waits for a lock, vectors are read from memory")
    ]


def clock(place: Place) -> Iterator[Finding]:
    """The server's clock against this machine's."""
    before = time.time()
    (theirs,) = place.connection.execute(_SQL["clock"]).fetchone() or (before,)
    skew = theirs - (before + time.time()) / 2
    if abs(skew) < _SKEW_SECONDS:
        yield ok("clock", f"within {abs(skew) + 0.05:.1f} s of the server's")
        return
    yield warning(
        "clock",
        f"the server's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine's",
        "times in logs and in freshvec.status do not fit together",
        "timedatectl set-ntp true, on the machine whose clock is wrong",
    )


def _median_ms(act: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        act()
        taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(taken)


def _old(place: Place) -> Iterator[Finding]:
    row = place.connection.execute(_SQL["oldest"]).fetchone()
    if row is not None and row[3] > LONG_SECONDS:
        pid, name, state, seconds = row
        yield warning(
            "load",
            f"a transaction has been open for {seconds / 60:.0f} min: pid {pid} ({name}, {state})",
            "dead rows stay while it is, so table and queue grow and are read ever slower",
            f"SELECT pg_terminate_backend({pid}); or idle_in_transaction_session_timeout for its role",
        )


def _waiting(place: Place) -> Iterator[Finding]:
    count, first = place.connection.execute(_SQL["waiting"]).fetchone() or (0, None)
    if count:
        yield warning(
            "load",
            f"{count} sessions have waited for a lock for seconds; in the way is {first}",
            "the database is slow for them, whatever freshvec does",
            "SELECT pid, pg_blocking_pids(pid), query FROM pg_stat_activity WHERE wait_event_type = 'Lock';",
        )


def _missed(place: Place) -> Iterator[Finding]:
    targets = [
        quoted_name(sync.target_name[0] or "public", sync.target_name[1]) for sync in place.settings.sync
    ]
    share, missed = place.connection.execute(_SQL["hits"], {"targets": targets}).fetchone() or (1.0, 0)
    if missed > MISSED and share < 0.9:
        yield warning(
            "load",
            f"{share:.0%} of what is read of vectors and their indexes is in shared_buffers",
            "a search by an HNSW index jumps through all of it, and waits for the disk at each jump",
            "ALTER SYSTEM SET shared_buffers = '…'; and restart Postgres; or target = { type = \"halfvec\" }",
        )
