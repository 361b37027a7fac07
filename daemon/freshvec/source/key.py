"""One column of a sync's key: its name, its type with the collation, and Postgres's own equality of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from freshvec.db import quoted, verbatim

_PRINTED_ALIKE = {"smallint", "integer", "bigint", "uuid", "boolean", "date", "bytea", "oid"}
_TEXTS = {"text", "character varying"}
# The database's own collation is deterministic: it orders by language, but only equal bytes are equal.
_BYTEWISE = {("pg_catalog", "default"), ("pg_catalog", "C"), ("pg_catalog", "POSIX")}


@dataclass(frozen=True)
class KeyColumn:
    """As read from the catalogue. `equality` is the operator that the key's index decides by, as it is called
    now; `equality_oid` stays its own wherever it is moved, and `comparing_oid` is the function behind it.
    `modifier` is what the type was given, as a length: its number in the catalogue, -1 without one."""

    name: str
    number: int
    type: str
    type_oid: int
    modifier: int
    collation: tuple[str, str] | None
    equality: tuple[str, str]
    greater: tuple[str, str]
    equality_oid: int
    comparing_oid: int

    @property
    def has_one_spelling(self) -> bool:
        """Whether equal values are printed alike. Of a text that is sure only where bytes are compared."""
        if self.type.split("(")[0] in _TEXTS:
            return self.collation in _BYTEWISE
        return self.type in _PRINTED_ALIKE

    @property
    def declared(self) -> sql.Composable:
        """Type and collation, as a column of ours is declared."""
        if self.collation is None:
            return verbatim(self.type)
        return sql.SQL("{} COLLATE {}").format(verbatim(self.type), quoted(*self.collation))

    def cast(self, value: sql.Composable) -> sql.Composable:
        """`value`, a text, as a value of this column. The parentheses are there because COLLATE binds
        looser."""
        typed = sql.SQL("{}::{}").format(value, verbatim(self.type))
        if self.collation is None:
            return typed
        return sql.SQL("({} COLLATE {})").format(typed, quoted(*self.collation))

    def equals(self, left: sql.Composable, right: sql.Composable) -> sql.Composable:
        """Whether two values are one key, as the key's index decides it, whatever the search path is."""
        return sql.SQL("{} {} {}").format(left, _operator(self.equality), right)


def beyond(
    columns: Sequence[KeyColumn], left: Sequence[sql.Composable], right: Sequence[sql.Composable]
) -> sql.Composable:
    """Whether the key `left` comes after the key `right` in the key's index.

    A comparison of rows is an index condition at any place of the table, but looks its operators up by the
    search path, where those of an extension's types are not.
    """
    if len(columns) > 1 and all(column.greater[0] == "pg_catalog" for column in columns):
        return sql.SQL("({}) > ({})").format(sql.SQL(", ").join(left), sql.SQL(", ").join(right))
    condition = sql.SQL("{} {} {}").format(left[0], _operator(columns[0].greater), right[0])
    if len(columns) == 1:
        return condition
    same = columns[0].equals(left[0], right[0])
    rest = beyond(columns[1:], left[1:], right[1:])
    at_least = sql.SQL("NOT {} {} {}").format(right[0], _operator(columns[0].greater), left[0])
    return sql.SQL("{} AND ({} OR {} AND ({}))").format(at_least, condition, same, rest)


def up_to(
    columns: Sequence[KeyColumn], left: Sequence[sql.Composable], right: Sequence[sql.Composable]
) -> sql.Composable:
    """Whether the key `left` comes no later than the key `right`: the opposite of `beyond`, as an index
    condition."""
    if len(columns) > 1 and all(column.greater[0] == "pg_catalog" for column in columns):
        return sql.SQL("({}) <= ({})").format(sql.SQL(", ").join(left), sql.SQL(", ").join(right))
    first = sql.SQL("NOT {} {} {}").format(left[0], _operator(columns[0].greater), right[0])
    if len(columns) == 1:
        return first
    return sql.SQL("{} AND NOT ({})").format(first, beyond(columns, left, right))


def _operator(name: tuple[str, str]) -> sql.Composable:
    schema, symbol = name
    return sql.SQL("OPERATOR({}." + symbol + ")").format(quoted(schema))
