"""The objects that a sync needs in the database, its triggers apart: their DDL, and whether all are there."""

import hashlib
from collections.abc import Sequence

from psycopg import sql

from freshvec.capture import queue, triggers
from freshvec.db import Connection, as_sent, queries
from freshvec.source.bound import BoundSync
from freshvec.target import table

_SQL = queries("schema/objects")
_FUNCTIONS = ("capture", "capture_row", "is_intact", "was_intact", "visible", "answered", "settled", "guard")


def shape_of(connection: Connection, bound: BoundSync) -> tuple[str, ...]:
    """The DDL of all objects that a sync needs but its triggers."""
    statements = [*queue.statements(bound), *table.statements(bound), *triggers.function_statements(bound)]
    return texts(statements, connection)


def hash_of(shape: Sequence[str]) -> str:
    """What is noted of the DDL that made a sync's objects."""
    return hashlib.sha256("\n".join(shape).encode()).hexdigest()


def has_all(connection: Connection, bound: BoundSync) -> bool:
    """Whether all that the sync needs is there, and its triggers are as they should be."""
    mending = [*triggers.mending(connection, bound), *table.mending(connection, bound)]
    return all_exist(connection, bound) and not mending


def all_exist(connection: Connection, bound: BoundSync) -> bool:
    """Whether the sync's queue, target, view and functions are there."""
    names = [("freshvec", f"queue_{bound.name}"), *bound.readable]
    functions = [f"{kind}_{bound.name}" for kind in _FUNCTIONS]
    if bound.is_shown:
        functions.append(f"embedded_{bound.declared_name}")
    given = {"names": [sql.Identifier(*name).as_string() for name in names], "functions": functions}
    row = connection.execute(_SQL["all_exist"], given).fetchone()
    return bool(row and row[0])


def texts(statements: Sequence[sql.Composable], connection: Connection | None = None) -> tuple[str, ...]:
    """Composed statements as what is sent."""
    return tuple(as_sent(statement, connection) for statement in statements)
