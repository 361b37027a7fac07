"""The server: its version, pgvector, and settings that what we do depends on."""

from collections.abc import Iterator

from freshvec.config import Sync
from freshvec.db import queries, quoted_name
from freshvec.doctor.finding import Finding, fault, ok, warning
from freshvec.doctor.place import Place
from freshvec.storage import split_name

_SQL = queries("doctor/server")
_OLDEST = 150000  # version with security_invoker, by which a view has the rights of who asks
_SESSIONS = 10  # a worker has eight
_LOCKS = 66  # of a sync that is shared: its shards, the lead and the bell
KEPT_BYTES = 2**30  # of log, by a slot that nobody reads
_LAG_SECONDS = 30
_TEMPORARY_KB = 2**20
_MANY = 20  # checkpoints that were asked for
UNREAD_SECONDS = 60  # that a transaction is idle in, whose session may not read its notifications
_RELOAD = "SELECT pg_reload_conf();"


def version(place: Place) -> Iterator[Finding]:
    """Old enough, and a primary."""
    shown, number, is_standby = place.connection.execute(_SQL["version"]).fetchone() or ("", 0, False)
    if number < _OLDEST:
        yield fault("server", f"PostgreSQL {shown}", "freshvec needs 15 or newer", "Upgrade the server.")
    elif is_standby:
        yield fault(
            "server",
            f"PostgreSQL {shown}, a standby, which takes no writes",
            "vectors are written and changes listened for on the primary alone",
            "Name the primary; with several hosts, add target_session_attrs=read-write.",
        )
    else:
        yield ok("server", f"PostgreSQL {shown}, a primary")


def pgvector(place: Place) -> Iterator[Finding]:
    """There, where a sync needs it."""
    there, available = place.connection.execute(_SQL["pgvector"]).fetchone() or (None, None)
    needing = [sync.name for sync in place.settings.sync if sync.target.type != "real[]"]
    if there is None and needing:
        yield fault(
            "pgvector",
            "it is not installed in this database" + ("" if available else ", nor on the server"),
            f"sync {needing[0]!r} wants {place.settings.find(needing[0])[0].target.type} vectors",
            "As a superuser: CREATE EXTENSION vector;"
            if available
            else 'Install pgvector on the server (postgresql-NN-pgvector), or write type = "real[]".',
        )
    elif there is None:
        yield ok("pgvector", "not installed, and not needed")
    elif _number(there) < (0, 7) and any(sync.target.type == "halfvec" for sync in place.settings.sync):
        yield fault(
            "pgvector", f"version {there} has no halfvec", "0.7 brought it", "ALTER EXTENSION vector UPDATE;"
        )
    else:
        newer = f"; {available} is there: ALTER EXTENSION vector UPDATE" if available != there else ""
        yield ok("pgvector", f"version {there}{newer}")


def sessions(place: Place) -> Iterator[Finding]:
    """Room for a worker's sessions."""
    most, there = place.connection.execute(_SQL["sessions"]).fetchone() or (0, 0)
    what = f"{there} of {most} sessions are in use"
    if most - there >= _SESSIONS:
        yield ok("sessions", what)
        return
    remedy = "Close idle ones, or: ALTER SYSTEM SET max_connections = …; and restart Postgres."
    yield warning("sessions", what, "a worker has eight, and the next one is refused", remedy)


def locks(place: Place) -> Iterator[Finding]:
    """Room for the shards' locks, where workers share the syncs."""
    if not place.settings.daemon.share:
        return
    (room,) = place.connection.execute(_SQL["locks"]).fetchone() or (0,)
    needed = _LOCKS * len(place.settings.sync)
    what = f"shards take {needed:,} of {room:,} locks"
    if 2 * needed <= room:
        yield ok("locks", what)
        return
    remedy = (
        f"ALTER SYSTEM SET max_locks_per_transaction = {64 * -(-2 * needed // room)}; and restart Postgres."
    )
    yield warning("locks", what, "without room for a lock any statement on any table fails", remedy)


def notifications(place: Place) -> Iterator[Finding]:
    """The queue in which every session's notifications wait for the slowest listener."""
    given = {"seconds": UNREAD_SECONDS}
    usage, oldest = place.connection.execute(_SQL["notifications"], given).fetchone() or (0.0, None)
    what = f"their queue is {usage:.0%} full"
    if usage < 0.1:
        yield ok("notifications", what)
        return
    why = "over half of it nobody is rung, so changes are found by sweeps; full, every NOTIFY fails"
    remedy = (
        "A session listens and does not read: see pg_stat_activity, and end it by pg_terminate_backend(pid)."
    )
    if oldest:
        remedy = f"The oldest idle transaction is that of {oldest}: SELECT pg_terminate_backend(pid);"
    yield (fault if usage >= 0.5 else warning)("notifications", what, why, remedy)


def two_phase(place: Place) -> Iterator[Finding]:
    """Prepared transactions: whether there may be any, and those that were forgotten."""
    most, forgotten = place.connection.execute(_SQL["two_phase"]).fetchone() or (0, None)
    if forgotten:
        yield warning(
            "two-phase",
            f"prepared over ten minutes ago and not ended: {forgotten}",
            "its changes are not committed, dead rows stay, and the queue is read from before it",
            f"COMMIT PREPARED '{forgotten.split(', ')[0]}'; or ROLLBACK PREPARED …;",
        )
    elif most:
        yield ok(
            "two-phase", f"max_prepared_transactions = {most}, so writers ring nobody: changes are polled"
        )
    else:
        yield ok("two-phase", "max_prepared_transactions = 0: writers ring the worker")


def replication(place: Place) -> Iterator[Finding]:
    """Slots that keep log for nobody, and replicas that lag."""
    slots = place.connection.execute(_SQL["slots"]).fetchall()
    lagging = [row for row in place.connection.execute(_SQL["replicas"]) if row[1] > _LAG_SECONDS]
    for name, is_active, kept, state in slots:
        if state == "lost" or (not is_active and kept > KEPT_BYTES):
            yield warning(
                "replication",
                f"slot {name} is used by nobody and keeps {kept / 1e9:.1f} GB of log ({state})",
                "what a backfill writes is kept, too, until the disk is full",
                f"SELECT pg_drop_replication_slot('{name}'); if nobody needs it any more",
            )
    for name, seconds in lagging:
        yield warning(
            "replication",
            f"replica {name} is {seconds:.0f} s behind",
            "a backfill may leave it further behind",
            "Write pause_at_lag_seconds = 10 under [daemon]: bulk work then waits for it.",
        )
    if not lagging:
        yield ok("replication", f"{len(slots)} slots, and no replica lags")


def log(place: Place) -> Iterator[Finding]:
    """Checkpoints that come too often, and safety that was switched off."""
    row = place.connection.execute(_SQL["log"]).fetchone()
    assert row is not None
    _, shown, has_fsync, has_pages = row
    is_new = place.connection.info.server_version >= 170000
    name = "checkpoints" if is_new else "checkpoints_before_17"
    timed, asked = place.connection.execute(_SQL[name]).fetchone() or (0, 0)
    if not (has_fsync and has_pages):
        off = "fsync" if not has_fsync else "full_page_writes"
        yield warning(
            "WAL",
            f"{off} is off",
            "a crash of the machine may damage every table",
            f"ALTER SYSTEM SET {off} = on; {_RELOAD}",
        )
    if asked > _MANY and asked > timed:
        yield warning(
            "WAL",
            f"{asked:,} checkpoints came because of much log, {timed:,} by time; max_wal_size is {shown}",
            "each makes the next writes dearer, and everybody slower",
            f"ALTER SYSTEM SET max_wal_size = '4GB'; {_RELOAD}",
        )
    elif has_fsync and has_pages:
        yield ok("WAL", f"max_wal_size is {shown}, and most checkpoints come by time")


def temporary_files(place: Place) -> Iterator[Finding]:
    """Statement triggers keep the rows of a large statement there."""
    (limit,) = place.connection.execute(_SQL["temporary_files"]).fetchone() or (-1,)
    if limit < 0 or limit >= _TEMPORARY_KB:
        yield ok("temporary files", "no limit" if limit < 0 else f"temp_file_limit is {limit:,} kB")
        return
    yield warning(
        "temporary files",
        f"temp_file_limit is {limit:,} kB",
        "triggers keep the rows of a large UPDATE in temporary files, and it fails where they are too many",
        f"ALTER SYSTEM SET temp_file_limit = '10GB'; {_RELOAD}",
    )


def autovacuum(place: Place) -> Iterator[Finding]:
    """Whether dead rows of source, target and queue are taken away."""
    (is_on,) = place.connection.execute(_SQL["autovacuum"]).fetchone() or (True,)
    if not is_on:
        yield warning(
            "autovacuum",
            "autovacuum or track_counts is off",
            "new vectors and changes leave dead rows, and what has many of them is read ever slower",
            f"ALTER SYSTEM SET autovacuum = on; ALTER SYSTEM SET track_counts = on; {_RELOAD}",
        )
    tables = [name for sync in place.settings.sync for name in _tables(sync)]
    left = place.connection.execute(_SQL["unvacuumed"], {"tables": tables}).fetchall()
    for name, problem, remedy in left:
        yield warning("autovacuum", f"{name}: {problem}", "it grows, and is read ever slower", remedy)
    if is_on and not left:
        yield ok("autovacuum", "on, and no table of a sync has many dead rows")


def _tables(sync: Sync) -> list[str]:
    """Source, target and queue, as they are written in SQL."""
    names = (split_name(sync.table), sync.target_name, ("freshvec", f"queue_{sync.name}"))
    return [quoted_name(schema or "public", table) for schema, table in names]


def _number(shown: str) -> tuple[int, ...]:
    return tuple(int(part) for part in shown.split(".") if part.isdecimal())
