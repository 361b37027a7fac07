"""Apply and remove: make a sync's objects in the database as planned, bind it to its table, and take it all
away."""

from dataclasses import replace

import psycopg
from psycopg import sql

from freshvec.backoff import Backoff
from freshvec.capture import triggers
from freshvec.capture.queue import ORPHANS
from freshvec.config import Sync
from freshvec.db import LOCK_CLASS, WRITE_LOCK_CLASS, Connection, queries, quoted, translated
from freshvec.errors import DatabaseError, FreshvecError
from freshvec.records import Model
from freshvec.schema import identity, migrations
from freshvec.schema.plan import Plan, is_complete, plan
from freshvec.source.bound import BoundSync
from freshvec.target import table

_SQL = queries("schema/apply")
_LOCK_ATTEMPTS = 10


def apply(
    connection: Connection, sync: Sync, model: Model, worker_role: str | None = None
) -> tuple[BoundSync, bool]:
    """Make the sync's objects and grants as declared; returns it, and whether anything had to be changed."""
    with translated("apply", f"sync {sync.name!r}"), migrations.exclusive(connection):
        changes = False
        backoff = Backoff(first=0.1, cap=2.0)
        while True:
            try:
                planned = plan(connection, sync, model, worker_role)
                changes = changes or not planned.is_applied
                return carry_out(connection, planned), changes
            except DatabaseError as error:
                # Whoever waits for a table's lock holds up all who come after: give way and try again.
                if not error.retryable or backoff.attempts >= _LOCK_ATTEMPTS:
                    raise
                connection.execute(_SQL["pause"], {"seconds": backoff.next_delay()})


def carry_out(connection: Connection, planned: Plan, *, trouble: str | None = None) -> BoundSync:
    """One transaction: what is lacking, the grants, and the new binding. Raises DatabaseError."""
    bound = planned.bound
    with translated("apply", f"sync {bound.name!r}"), connection.transaction():
        connection.execute(_SQL["give_way_soon"])
        connection.execute(_SQL["lock"], {"class": WRITE_LOCK_CLASS, "name": bound.name})
        for statement in (*planned.lacking, *planned.access):
            connection.execute(sql.SQL(statement))
        if planned.access:
            _check_grants(connection, bound)
        return _define(connection, planned, trouble)


def _check_grants(connection: Connection, bound: BoundSync) -> None:
    """Postgres only warns who may read a table, but not give it on, that a grant or revoke did nothing."""
    row = connection.execute(
        _SQL["may_grant"], {"names": [quoted(*bound.target_name).as_string(None)]}
    ).fetchone()
    if not (row and row[0]):
        raise psycopg.errors.InsufficientPrivilege(f"must be owner of table {bound.target_name[1]}")


def _define(connection: Connection, planned: Plan, trouble: str | None) -> BoundSync:
    """Note the binding. The definition counts as applied only together with everything it says."""
    bound, difference = planned.bound, planned.difference
    now, _ = identity.read(connection, bound)
    if planned.lacking and not is_complete(connection, bound):  # later changes are seen at the next look
        problem = "its table or what was made for it changed while this was under way"
        raise DatabaseError("apply", f"sync {bound.name!r}", problem, "Try it again.", retryable=True)
    given = {
        "name": bound.name,
        "source_schema": bound.source_name[0],
        "source_table": bound.source_name[1],
        "source_oid": bound.source_oid,
        "target_schema": bound.target_name[0],
        "target_table": bound.target_name[1],
        "model": bound.model.name,
        "fingerprint": bound.model.fingerprint,
        "definition": planned.definition,
        "shape": planned.shape_hash,
        "identity": identity.noted(planned.identity, now, has_made=bool(planned.lacking)),
        "granted": list(planned.readers),
        "trouble": trouble,
        "walk": planned.is_redefined or difference.whole or not _queue_members(connection, planned),
        "is_new_binding": planned.is_redefined or difference.is_binding,
    }
    if planned.applied is None:
        connection.execute(_SQL["insert_sync"], given)
    if planned.is_redefined or difference.whole:
        connection.execute(bound.compose(_SQL["raise_fence"]))
    if difference.has_lost_members and not given["walk"]:
        ask_for_walk(connection, bound.name, ORPHANS)
    row = connection.execute(_SQL["define_sync"], given).fetchone()
    assert row is not None
    return replace(bound, id=row[0], generation=row[1])


def _queue_members(connection: Connection, planned: Plan) -> bool:
    """Queue the rows of partitions or children that came; False where the queue has no room for them.

    A walk of the others would find nothing, so it is left to members that are too large for the queue.
    """
    bound = planned.bound
    for oid in planned.difference.added:
        row = connection.execute(_SQL["member"], {"oid": oid}).fetchone()
        if row is None:
            continue
        member = quoted(*row)
        room = {"queue_bytes": bound.sync.queue_bytes, "queue": f'freshvec."queue_{bound.name}"'}
        fits = connection.execute(bound.compose(_SQL["has_room"], member=member), room).fetchone()
        if not (fits and fits[0]):
            return False
        connection.execute(bound.compose(_SQL["queue_member"], member=member))
    return True


def ask_for_walk(connection: Connection, name: str, reason: str) -> None:
    """Have the owner compare the sync's whole table."""
    connection.execute(_SQL["ask_for_walk"], {"name": name, "reason": reason})


def remove(connection: Connection, name: str) -> bool:
    """Take everything of a sync away; the source stays as it was. False when it was not applied.

    Raises FreshvecError while a worker owns the sync: it would make everything again.
    """
    with translated("remove", f"sync {name!r}"), migrations.exclusive(connection):
        if not migrations.is_bootstrapped(connection):
            return False
        row = connection.execute(_SQL["find_target"], {"name": name}).fetchone()
        if row is None:
            return False
        with connection.transaction():
            _refuse_while_owned(connection, name)
            for statement in triggers.removal(connection, name):
                connection.execute(statement, ())
            connection.execute(table.removal(name, (row[0], row[1])), ())
            connection.execute(_SQL["forget"], {"name": name})
    return True


def _refuse_while_owned(connection: Connection, name: str) -> None:
    lock = {"class": LOCK_CLASS, "name": name}
    row = connection.execute(_SQL["own_for_now"], lock).fetchone()
    if not (row and row[0]):
        pid, application = connection.execute(_SQL["owner"], lock).fetchone() or ("unknown", "unknown")
        raise FreshvecError(
            "remove",
            f"sync {name!r}",
            f"a running worker keeps it (backend {pid}, {application}) and would make everything again",
            "Take the sync out of that worker's file and reload or stop it; then remove the sync.",
        )


def applied_names(connection: Connection) -> list[str]:
    """The syncs the database knows."""
    if not migrations.is_bootstrapped(connection):
        return []
    return [name for (name,) in connection.execute(_SQL["names"])]
