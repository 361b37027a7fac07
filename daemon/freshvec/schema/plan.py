"""Plan: what a sync needs in the database, as DDL, and whether that is there already."""

from dataclasses import dataclass, replace

from psycopg import sql

from freshvec.capture import queue, triggers
from freshvec.config import Sync
from freshvec.db import Connection, queries, quoted
from freshvec.errors import SchemaError
from freshvec.records import Model
from freshvec.schema import migrations
from freshvec.source.bind import bind
from freshvec.source.bound import BoundSync
from freshvec.target import table

_SQL = queries("schema/plan")


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
    table.check_existing(connection, bound)
    grants = table.grants(connection, bound, worker_role)
    if worker_role:
        grants.append(sql.SQL(_SQL["grant_schema"]).format(role=quoted(worker_role)))
    shape = [*queue.statements(bound), *table.statements(bound), *triggers.statements(bound)]
    planned = Plan(bound, text(shape), text(grants), is_applied=False)
    if migrations.pending(connection):
        return planned
    _check_target_free(connection, bound)
    found = connection.execute(_SQL["find_sync"], {"name": sync.name}).fetchone()
    if found is None:
        return planned
    is_applied = found[1] == planned.definition and _is_whole(connection, bound)
    return replace(planned, bound=replace(bound, id=found[0]), is_applied=is_applied)


def _is_whole(connection: Connection, bound: BoundSync) -> bool:
    """Whether every object and every trigger of an applied sync is still there."""
    names = [("freshvec", f"queue_{bound.name}"), bound.target_name, bound.view_name]
    quoted_names = [sql.Identifier(*name).as_string() for name in names]
    row = connection.execute(_SQL["all_exist"], {"names": quoted_names}).fetchone()
    return bool(row and row[0]) and triggers.is_installed(connection, bound)


def _check_target_free(connection: Connection, bound: BoundSync) -> None:
    schema, name = bound.target_name
    names = {"target_schema": schema, "target_table": name, "name": bound.name}
    other = connection.execute(_SQL["target_taken"], names).fetchone()
    if other:
        raise SchemaError(
            f"use the target of sync {bound.name!r},",
            f"{schema}.{name}",
            f"sync {other[0]!r} already writes to it",
            f'Name another one: target = {{ table = "…" }}, or `freshvec remove {other[0]}`.',
        )
