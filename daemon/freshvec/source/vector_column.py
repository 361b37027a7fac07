"""The column of the source that vectors are written to: whether it is there, and whether it can take them."""

from freshvec.db import Connection, queries, quoted_name
from freshvec.errors import SchemaError
from freshvec.source.bound import BoundSync

_SQL = queries("source/vector_column")


def is_there(connection: Connection, bound: BoundSync) -> bool:
    """Whether the column exists; True where none is declared.

    Raises SchemaError where vectors cannot be kept in it.
    """
    column = bound.sync.target.column
    if column is None:
        return True
    if column in bound.key_columns:
        raise _refused(bound, "it is part of the key", "Name another column.")
    if column in bound.watched:
        problem = "the text depends on it, so each vector would be another text"
        raise _refused(bound, problem, "Name another column, or take it out of the expression and where.")
    owner = connection.execute(_SQL["owner"], {"oid": bound.source_oid}).fetchone()
    if owner is not None:
        problem = f"the table is {owner[0]}'s, whose triggers would run with a superuser's rights"
        remedy = "Run freshvec as a role of its own (docs/operations.md, Roles)."
        raise _refused(bound, problem, remedy)
    row = connection.execute(_SQL["column"], {"oid": bound.source_oid, "column": column}).fetchone()
    if row is None:
        return False
    has, is_required, is_generated = row
    wanted = bound.vector_type.as_string(None).replace('"', "")
    if is_generated:
        raise _refused(bound, "it is generated, and cannot be written", "Name another column.")
    if has.split(".")[-1] != wanted.split(".")[-1]:
        raise _refused(
            bound,
            f"it is {has}, but model {bound.model.name} with type {bound.sync.target.type} gives "
            f"{wanted.split('.')[-1]}",
            f"{_other_type(bound, has)}Or name another column, which `freshvec apply` makes.",
        )
    if is_required:
        remedy = f"{_altering(bound)} DROP NOT NULL;"
        raise _refused(bound, "it is NOT NULL, and a row without text has no vector", remedy)
    return True


def _other_type(bound: BoundSync, has: str) -> str:
    """What makes a column of another type fit, where that is easily done."""
    kind = has.split(".")[-1].split("(")[0]
    if kind != bound.sync.target.type:
        return f'Write type = "{kind}" in target. ' if kind in ("vector", "halfvec", "real[]") else ""
    if "(" in has:  # of another dimension
        return f"Write a model that gives {has.split('.')[-1]}. "
    return f"{_altering(bound)} TYPE {bound.vector_type.as_string(None)}; "


def _altering(bound: BoundSync) -> str:
    column = quoted_name(bound.sync.target.column)
    return f"ALTER TABLE {quoted_name(*bound.source_name)} ALTER COLUMN {column}"


def _refused(bound: BoundSync, problem: str, remedy: str) -> SchemaError:
    column = bound.sync.target.column
    return SchemaError(
        f"write the vectors of sync {bound.name!r} to",
        f"{bound.sync.table}, column {column}",
        problem,
        remedy,
    )
