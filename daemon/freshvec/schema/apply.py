"""Apply and remove: make a sync's objects in the database as planned, bind it to its table, and take it all
away."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import psycopg
from loguru import logger
from psycopg import sql

from freshvec.capture import triggers
from freshvec.capture.queue import ORPHANS, REDEFINED
from freshvec.config import Sync
from freshvec.db import LOCK_CLASS, WRITE_LOCK_CLASS, Connection, queries, quoted, quoted_name, translated
from freshvec.errors import DatabaseError, LockedError, NotOwnedError
from freshvec.records import Model
from freshvec.schema import changes, identity, migrations
from freshvec.schema.editions import edition_of
from freshvec.schema.objects import has_all
from freshvec.schema.plan import Plan, plan
from freshvec.source.bound import BoundSync
from freshvec.source.edition import Edition, view_of
from freshvec.source.locks import ATTEMPT_SECONDS, attempt, held, patiently, take, wait_at_most
from freshvec.target import building, table, trust

_SQL = queries("schema/apply")
PATIENCE_SECONDS = 60.0
_OWN_SECONDS = 0.25  # to wait for a writing transaction of ours, which holds up nobody else


def apply(
    connection: Connection,
    sync: Sync,
    model: Model,
    worker_role: str | None = None,
    patience: float = PATIENCE_SECONDS,
) -> tuple[BoundSync, bool]:
    """Make the sync's objects and grants as declared; returns it, and whether anything had to be changed.

    Raises LockedError where somebody is in the way of it for longer than `patience`; what was made by then
    stays, and another attempt makes the rest.
    """
    has_changed = False

    def act() -> BoundSync:
        nonlocal has_changed
        with migrations.exclusive(connection):  # between attempts others have their turn
            planned = plan(connection, sync, model, worker_role)
            has_changed = has_changed or not planned.is_applied
            if planned.column:
                make_column(connection, planned)
                planned = plan(connection, sync, model, worker_role)
            bound = carry_out(connection, planned)
            changes.make(connection, triggers.strays(connection, bound))
            return bound

    with translated("apply", f"sync {sync.name!r}"):
        return patiently(connection, act, patience), has_changed


def make_column(connection: Connection, planned: Plan) -> None:
    """The column of the source that vectors are to be written to. Plan again afterwards: it has another
    identity.

    Raises LockedError and DatabaseError.
    """
    with translated("apply", f"sync {planned.bound.name!r}"):
        changes.make(connection, planned.column)


def carry_out(connection: Connection, planned: Plan, *, trouble: str | None = None) -> BoundSync:
    """What is lacking, the grants, and the new binding, by one attempt at each lock that is needed.

    Each of the application's tables has a transaction of its own. Raises LockedError and DatabaseError; then
    the next plan does the rest.
    """
    with translated("apply", f"sync {planned.bound.name!r}"):
        if planned.objects or (planned.triggers and planned.bound.vectors_name == planned.bound.source_name):
            # A build of its index may be under way, and takes hours.
            building.interrupt(connection, planned.bound.name)
        if planned.needs_preparing:
            prepare(connection, planned)
        if planned.triggers and (planned.objects or planned.access or planned.is_redefined):
            # Triggers need queue and functions. No identity is noted yet: if this ends here, whoever goes on
            # walks everything.
            _define(connection, planned, trouble, is_complete=False)
            planned = replace(planned, objects=(), access=())
        changes.make(connection, planned.triggers)
        try:
            changes.make(connection, planned.strays)
        except LockedError as error:  # they note too much, which is no reason to stand still
            logger.info("sync {}: triggers it needs no more stay for now; {}", planned.bound.name, error)
        return _define(connection, planned, trouble, is_complete=True)


def prepare(connection: Connection, planned: Plan) -> None:
    """What takes long where the target is large, before anything is locked that others need.

    Raises LockedError and DatabaseError.
    """
    bound = planned.bound
    with translated("apply", f"sync {bound.name!r}"):
        with connection.transaction():
            connection.execute(_SQL["as_of_now"])
            trust.check(connection, bound)
            for statement in planned.beside:
                connection.execute(sql.SQL(statement))
        if planned.needs_fence:
            with attempt(connection, [bound.target_name], "ACCESS SHARE"):
                if table.describe(connection, bound.target_name) is not None:
                    connection.execute(bound.compose(_SQL["raise_fence"]), ())


def _define(connection: Connection, planned: Plan, trouble: str | None, *, is_complete: bool) -> BoundSync:
    """Objects, grants and definition in one transaction: none of them counts as applied without the
    others."""
    bound = planned.bound
    made_anew = tuple(reversed(bound.readable)) if planned.objects else ()
    if planned.renews_key:
        made_anew = (*made_anew, ("freshvec", f"queue_{bound.name}"))
    with attempt(connection, made_anew or bound.tables, "ACCESS EXCLUSIVE"):
        wait_at_most(connection, _OWN_SECONDS)
        connection.execute(_SQL["lock"], {"class": WRITE_LOCK_CLASS, "name": bound.name})
        wait_at_most(connection, ATTEMPT_SECONDS)
        take(connection, made_anew, "ACCESS EXCLUSIVE")
        trust.check(connection, bound)
        _check_edition(connection, bound.name, bound.edition)
        for statement in (*planned.objects, *planned.access):
            connection.execute(sql.SQL(statement))
        if planned.access:
            _check_grants(connection, bound)
        return _note(connection, planned, trouble, is_complete=is_complete)


def _check_edition(connection: Connection, name: str, planned: Edition | None) -> None:
    """What was planned for the edition that is shown must not be done to another one, nor the reverse."""
    found = edition_of(connection, name)
    if (found is None or found.is_shown) != (planned is None or planned.is_shown):
        problem = "another edition of it has come to be shown while this was under way"
        raise DatabaseError("change", f"sync {name!r}", problem, "Try it again.", retryable=True)


def _check_grants(connection: Connection, bound: BoundSync) -> None:
    """Postgres only warns who may read a table, but not give it on, that a grant or revoke did nothing."""
    row = connection.execute(
        _SQL["may_grant"], {"names": [quoted_name(*table) for table in bound.tables]}
    ).fetchone()
    if not (row and row[0]):
        raise psycopg.errors.InsufficientPrivilege(f"must be owner of table {bound.target_name[1]}")


def _note(connection: Connection, planned: Plan, trouble: str | None, *, is_complete: bool) -> BoundSync:
    """Note the binding, and what is to be walked for it. Without its triggers it has no identity yet."""
    bound, difference = planned.bound, planned.difference if is_complete else identity.SAME
    now, _ = identity.read(connection, bound)
    if is_complete and planned.lacking and not has_all(connection, bound):  # later changes: at the next look
        problem = "its table or what was made for it changed while this was under way"
        raise DatabaseError("apply", f"sync {bound.name!r}", problem, "Try it again.", retryable=True)
    noted = identity.noted(planned.identity, now, has_made=bool(planned.lacking)) if is_complete else ""
    is_walked = planned.is_redefined or difference.whole
    is_walked = is_walked or not _queue_members(connection, bound, difference.added)
    is_new = planned.is_redefined or difference.is_binding
    given = planned.noted(noted, trouble=trouble, walk=is_walked, is_new_binding=is_new)
    if planned.applied is None:
        connection.execute(_SQL["insert_sync"], given)
    if planned.is_noted_otherwise:
        ask_for_walk(connection, bound.name, REDEFINED)
    if difference.has_lost_members and not is_walked:
        ask_for_walk(connection, bound.name, ORPHANS)
    row = connection.execute(_SQL["define_sync"], given).fetchone()
    assert row is not None
    return replace(bound, id=row[0], generation=row[1])


def _queue_members(connection: Connection, bound: BoundSync, added: Sequence[int]) -> bool:
    """Queue the rows of partitions or children that came; False where the queue has no room for them.

    A walk of the others would find nothing, so it is left to members that are too large for the queue.
    """
    for oid in added:
        row = connection.execute(_SQL["member"], {"oid": oid}).fetchone()
        if row is None:
            continue
        member = quoted(*row)
        room = {"queue_bytes": bound.sync.queue_bytes, "queue": f'freshvec."queue_{bound.name}"'}
        fits = connection.execute(bound.compose(_SQL["has_room"], member=member), room).fetchone()
        if not (fits and fits[0]):
            return False
        connection.execute(bound.compose(_SQL["queue_member"], member=member), ())
    return True


def ask_for_walk(connection: Connection, name: str, reason: str) -> None:
    """Have the owner compare the sync's whole table."""
    connection.execute(_SQL["ask_for_walk"], {"name": name, "reason": reason})


def remove(connection: Connection, name: str, patience: float = PATIENCE_SECONDS) -> bool:
    """Take everything of a sync away; the source stays as it was. False when it was not applied.

    Raises NotOwnedError while a worker owns the sync: it would make everything again. Raises LockedError
    where somebody is in the way for longer than `patience`; another attempt takes the rest away.
    """

    def act() -> bool:
        with migrations.exclusive(connection, waits=patience > 0):  # between attempts others have their turn
            tables = connection.execute(_SQL["find_tables"], {"name": name}).fetchall()
            if not tables:
                return False
            building.interrupt(connection, name)
            changes.make(connection, triggers.removal(connection, name))
            _forget(connection, name, tables)
            return True

    with translated("remove", f"sync {name!r}"):
        if not migrations.is_bootstrapped(connection):
            return False
        migrations.migrate(connection)
        with owned(connection, name, "remove", "would make everything again", "then remove the sync"):
            return patiently(connection, act, patience)


def kept_column(connection: Connection, name: str) -> str | None:
    """The statement that drops the column of the source that an applied sync writes to, which `remove`
    leaves."""
    if not migrations.is_bootstrapped(connection):
        return None
    with translated("look up", f"sync {name!r}"):
        row = connection.execute(_SQL["kept_column"], {"name": name}).fetchone()
    return None if row is None else row[0]


def _forget(connection: Connection, name: str, tables: Sequence[tuple[str, str]]) -> None:
    """Take away what the triggers needed, and the sync; the view, where it shows this edition of it."""
    edition = edition_of(connection, name) or Edition(name, view_of(tables[0]), is_shown=True)
    views = [edition.view] if edition.is_shown else []
    with held(connection, [*views, *tables, ("freshvec", f"queue_{name}")], "ACCESS EXCLUSIVE"):
        _check_edition(connection, name, edition)
        for view in views:
            connection.execute(table.view_removal(edition.sync, view), ())
        connection.execute(triggers.functions_removal(name), ())
        connection.execute(table.removal(name, tables), ())
        connection.execute(_SQL["forget"], {"name": name})


def forget(connection: Connection, name: str) -> None:
    """Know nothing of a sync of which nothing is there."""
    with translated("forget", f"sync {name!r}"):
        connection.execute(_SQL["forget"], {"name": name})


@contextmanager
def owned(connection: Connection, name: str, operation: str, consequence: str, then: str) -> Iterator[None]:
    """No worker owns the sync, and none will until the end. Raises NotOwnedError where one does: it says what
    the worker would do, and what is to be done once it is gone."""
    lock = {"class": LOCK_CLASS, "name": name}
    row = connection.execute(_SQL["own"], lock).fetchone()
    if not (row and row[0]):
        pid, application = connection.execute(_SQL["owner"], lock).fetchone() or ("unknown", "unknown")
        raise NotOwnedError(
            operation,
            f"sync {name!r}",
            f"a running worker keeps it (backend {pid}, {application}) and {consequence}",
            f"Take the sync out of that worker's file and reload or stop it; {then}.",
            retryable=True,
        )
    try:
        yield
    finally:
        if not connection.broken:
            connection.execute(_SQL["disown"], lock)
