"""Apply and remove: make a sync's objects in the database as planned, and take them away."""

from dataclasses import replace

from psycopg import sql

from freshvec.backoff import Backoff
from freshvec.capture import triggers
from freshvec.config import Sync
from freshvec.db import Connection, queries, translated
from freshvec.errors import DatabaseError
from freshvec.records import Model
from freshvec.schema import migrations
from freshvec.schema.plan import Plan, plan
from freshvec.source.bound import BoundSync
from freshvec.target import table

_SQL = queries("schema/apply")
_LOCK_ATTEMPTS = 10


def apply(
    connection: Connection, sync: Sync, model: Model, worker_role: str | None = None
) -> tuple[BoundSync, bool]:
    """Make the sync's objects and grants as declared; returns it, and whether its objects had to be changed."""
    with translated("apply", f"sync {sync.name!r}"), migrations.exclusive(connection):
        planned = plan(connection, sync, model, worker_role)
        backoff = Backoff(first=0.1, cap=2.0)
        while True:
            try:
                with translated("apply", f"sync {sync.name!r}"), connection.transaction():
                    return _create(connection, planned), not planned.is_applied
            except DatabaseError as error:
                # Whoever waits for a table's lock holds up all who come after: give way and try again.
                if not error.retryable or backoff.attempts >= _LOCK_ATTEMPTS:
                    raise
                connection.execute(_SQL["pause"], {"seconds": backoff.next_delay()})


def _create(connection: Connection, planned: Plan) -> BoundSync:
    bound = planned.bound
    names = {
        "name": bound.name,
        "source_schema": bound.source_name[0],
        "source_table": bound.source_name[1],
        "target_schema": bound.target_name[0],
        "target_table": bound.target_name[1],
        "model": bound.model.name,
        "fingerprint": bound.model.fingerprint,
        "definition": planned.definition,
    }
    connection.execute(_SQL["give_way_soon"])
    if not bound.id:
        row = connection.execute(_SQL["insert_sync"], names).fetchone()
        bound = replace(bound, id=row[0] if row else 0)
    if not planned.is_applied:
        for statement in planned.shape:
            connection.execute(sql.SQL(statement))
        # Last: the definition counts as applied only together with everything it says.
        connection.execute(_SQL["define_sync"], names)
    for statement in planned.grants:
        connection.execute(sql.SQL(statement))
    return bound


def remove(connection: Connection, name: str) -> bool:
    """Take everything of a sync away; the source stays as it was. False when it was not applied."""
    with translated("remove", f"sync {name!r}"), migrations.exclusive(connection):
        if not migrations.is_bootstrapped(connection):
            return False
        found = connection.execute(_SQL["find_target"], {"name": name}).fetchone()
        if found is None:
            return False
        with connection.transaction():
            for statement in triggers.removal(connection, name):
                connection.execute(statement, ())
            connection.execute(table.removal(name, (found[0], found[1])), ())
            connection.execute(_SQL["forget"], {"name": name})
    return True


def applied_names(connection: Connection) -> list[str]:
    """The syncs the database knows."""
    if not migrations.is_bootstrapped(connection):
        return []
    return [name for (name,) in connection.execute(_SQL["names"])]
