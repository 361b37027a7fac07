"""Plan, apply and remove: from the declared syncs to their objects in the database."""

from dataclasses import dataclass, replace

from psycopg import sql

from embedsync import capture, migrations, queue, target
from embedsync.backoff import Backoff
from embedsync.config import Sync
from embedsync.db import Connection, queries, quoted, translated
from embedsync.errors import DatabaseError, SchemaError
from embedsync.source import BoundSync, Model, bind

_SQL = queries("schema")
_LOCK_ATTEMPTS = 10


@dataclass(frozen=True)
class Plan:
    """What a sync needs in the database. `shape` are its objects, `grants` what is still to be granted."""

    bound: BoundSync
    shape: tuple[str, ...]
    grants: tuple[str, ...]
    is_applied: bool

    @property
    def definition(self) -> str:
        """The text that tells whether an applied sync is still the declared one."""
        model = self.bound.model
        return "\n".join([f"-- model {model.name} {model.fingerprint.hex()}", *self.shape])


def plan(connection: Connection, sync: Sync, model: Model, worker_role: str | None = None) -> Plan:
    """The sync bound to the database, its whole DDL, and whether that is applied already. Changes nothing.

    Raises SchemaError or DatabaseError for whatever would keep it from being applied.
    """

    def text(statements: list[sql.Composed]) -> tuple[str, ...]:
        return tuple(statement.as_string(connection).replace("%%", "%") for statement in statements)

    bound = bind(connection, sync, model)
    target.check_existing(connection, bound)
    grants = target.grants(connection, bound, worker_role)
    if worker_role:
        grants.append(sql.SQL(_SQL["grant_schema"]).format(role=quoted(worker_role)))
    shape = [*queue.statements(bound), *target.statements(bound), *capture.statements(bound)]
    planned = Plan(bound, text(shape), text(grants), is_applied=False)
    if migrations.pending(connection):
        return planned
    _check_target_free(connection, bound)
    found = connection.execute(_SQL["find_sync"], {"name": sync.name}).fetchone()
    if found is None:
        return planned
    is_applied = found[1] == planned.definition and _objects_exist(connection, bound) and capture.is_installed(connection, bound)
    return replace(planned, bound=replace(bound, id=found[0]), is_applied=is_applied)


def apply(connection: Connection, sync: Sync, model: Model, worker_role: str | None = None) -> tuple[BoundSync, bool]:
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
                connection.execute("SELECT pg_sleep(%s)", (backoff.next_delay(),))


def _objects_exist(connection: Connection, bound: BoundSync) -> bool:
    names = [("embedsync", f"queue_{bound.name}"), bound.target_name, bound.view_name]
    row = connection.execute(_SQL["all_exist"], {"names": [sql.Identifier(*name).as_string() for name in names]}).fetchone()
    return bool(row and row[0])


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
    connection.execute("SET LOCAL lock_timeout = '1s'")
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
        row = connection.execute(_SQL["exists"]).fetchone()
        if not (row and row[0]):
            return False
        found = next((row for row in connection.execute(_SQL["list_syncs"]) if row[1] == name), None)
        if found is None:
            return False
        with connection.transaction():
            for statement in capture.removal(connection, name):
                connection.execute(statement, ())
            connection.execute(target.removal(name, (found[4], found[5])), ())
            connection.execute(_SQL["forget"], {"name": name})
    return True


def applied_names(connection: Connection) -> list[str]:
    """The syncs the database knows."""
    row = connection.execute(_SQL["exists"]).fetchone()
    return [row[1] for row in connection.execute(_SQL["list_syncs"])] if row and row[0] else []


def _check_target_free(connection: Connection, bound: BoundSync) -> None:
    schema, table = bound.target_name
    names = {"target_schema": schema, "target_table": table, "name": bound.name}
    other = connection.execute(_SQL["target_taken"], names).fetchone()
    if other:
        raise SchemaError(
            f"use the target of sync {bound.name!r},", f"{schema}.{table}", f"sync {other[0]!r} already writes to it",
            f'Name another one: target = {{ table = "…" }}, or `embedsync remove {other[0]}`.',
        )  # fmt: skip
