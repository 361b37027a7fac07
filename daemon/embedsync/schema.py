"""Plan, apply and remove: from the declared syncs to their objects in the database."""

from dataclasses import replace

from psycopg import sql

from embedsync import capture, migrations, queue, target
from embedsync.backoff import Backoff
from embedsync.config import Sync
from embedsync.db import Connection, queries, quoted, translated
from embedsync.errors import DatabaseError, SchemaError
from embedsync.source import BoundSync, Model, bind

_SQL = queries("schema")
_LOCK_ATTEMPTS = 10


def plan(connection: Connection, sync: Sync, model: Model, worker_role: str | None) -> tuple[BoundSync, list[str], bool]:
    """The sync bound to the database, its whole DDL, and whether that is applied already. Changes nothing.

    Raises SchemaError or DatabaseError for whatever would keep it from being applied.
    """
    bound = bind(connection, sync, model)
    target.check_existing(connection, bound)
    statements = [
        *queue.statements(bound),
        *target.statements(bound),
        *capture.statements(bound),
        *target.grants(connection, bound, worker_role),
    ]
    if worker_role:
        statements.append(sql.SQL(_SQL["grant_schema"]).format(role=quoted(worker_role)))
    ddl = [statement.as_string(connection).replace("%%", "%") for statement in statements]
    found = None
    if not migrations.pending(connection):
        _check_target_free(connection, bound)
        found = connection.execute(_SQL["find_sync"], {"name": sync.name}).fetchone()
    if found is None:
        return bound, ddl, False
    applied = found[1] == _definition(bound, ddl) and capture.is_installed(connection, bound)
    return replace(bound, id=found[0]), ddl, applied


def apply(connection: Connection, sync: Sync, model: Model, worker_role: str | None = None) -> tuple[BoundSync, bool]:
    """Make the sync's objects as declared; returns it, and whether anything had to be done."""
    with translated("apply", f"sync {sync.name!r}"), migrations.exclusive(connection):
        bound, ddl, applied = plan(connection, sync, model, worker_role)
        if applied:
            return bound, False
        backoff = Backoff(first=0.1, cap=2.0)
        while True:
            try:
                with translated("apply", f"sync {sync.name!r}"), connection.transaction():
                    return _create(connection, bound, ddl), True
            except DatabaseError as error:
                # Whoever waits for a table's lock holds up all who come after: give way and try again.
                if not error.retryable or backoff.attempts >= _LOCK_ATTEMPTS:
                    raise
                connection.execute("SELECT pg_sleep(%s)", (backoff.next_delay(),))


def _create(connection: Connection, bound: BoundSync, ddl: list[str]) -> BoundSync:
    names = {
        "name": bound.name,
        "source_schema": bound.source_name[0],
        "source_table": bound.source_name[1],
        "target_schema": bound.target_name[0],
        "target_table": bound.target_name[1],
        "model": bound.model.name,
        "fingerprint": bound.model.fingerprint,
    }
    if not bound.id:
        row = connection.execute(_SQL["insert_sync"], names).fetchone()
        assert row is not None
        bound = replace(bound, id=row[0])
    connection.execute("SET LOCAL lock_timeout = '1s'")
    for statement in ddl:
        connection.execute(sql.SQL(statement))
    # Last: the definition counts as applied only together with everything it says.
    connection.execute(_SQL["define_sync"], names | {"definition": _definition(bound, ddl)})
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


def _definition(bound: BoundSync, ddl: list[str]) -> str:
    return "\n".join([f"-- model {bound.model.name} {bound.model.fingerprint.hex()}", *ddl])
