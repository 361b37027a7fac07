"""How target and queue follow a key of the source that has become another.

Only what takes no time is done to them in place. Where Postgres would write the target and its indexes again,
with searches waiting, its rows are copied to a table beside it, which nobody else uses, and that takes its
place. The queue is always made anew, since a walk follows: nothing long may happen to it, as every writer of
the source needs it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from freshvec.db import Connection, queries, quoted, quoted_name, verbatim
from freshvec.source.bound import BoundSync
from freshvec.source.key import KeyColumn

_SQL = queries("target/rekey")
_OF_ROWS = ("content_hash", "fingerprint", "fence", "encode_error", "embedded_at")
_OF_PASSAGES = ("chunk", "chunk_start", "chunk_end", "content_hash", "embedding")

Column = tuple[str, str, list[str] | None]  # name, type, collation
Name = tuple[str, str]


@dataclass(frozen=True)
class Following:
    """`beside` is the DDL that copies a target's rows, for a transaction of its own; `ddl` is run then, with
    target, view and queue locked, and before they are made as they are declared; where the target
    `begins_anew`, nothing of it stays."""

    beside: list[sql.Composed] = field(default_factory=list)
    ddl: list[sql.Composed] = field(default_factory=list)
    begins_anew: bool = False

    def __bool__(self) -> bool:
        return bool(self.ddl)


def following(
    connection: Connection, bound: BoundSync, oid: int, kept_as: str, creating: sql.Composed
) -> Following:
    """How an existing target follows the key. `creating` is the DDL of its tables under the names of copies;
    without rows, since those of a key of fewer or more columns say nothing of the new one."""
    has = _columns(connection, oid)
    declared = [_declared(column) for column in bound.key]
    places = copies(bound.name)[: len(bound.tables)]
    copy_oid = _oid_of(connection, places[0])
    if has == declared:
        return Following() if copy_oid is None else Following([removal(bound.name)])  # it came too late
    queue = bound.compose(_SQL["drop_queue"])
    if len(has) != len(declared):
        return Following(ddl=[bound.compose(_SQL["drop_tables"]), queue], begins_anew=True)
    if _is_done_at_once(connection, bound, oid, has):
        return Following(ddl=[*_in_place(bound, has), queue])
    moves = [_move(copy, table) for copy, table in zip(places, bound.tables, strict=True)]
    ddl = [bound.compose(_SQL["drop_tables"]), *moves, queue]
    if copy_oid is not None and _columns(connection, copy_oid) == declared:
        return Following(ddl=ddl)  # it was made in one transaction, so nothing is lacking in it
    return Following([removal(bound.name), creating, *_copying(bound, has, kept_as, places)], ddl)


def copies(sync_name: str) -> tuple[Name, Name]:
    """What the copies of a sync's target and of its passages are called while they stand beside them."""
    return ("freshvec", f"rekeyed_{sync_name}"), ("freshvec", f"rekeyed_more_{sync_name}")


def removal(sync_name: str) -> sql.Composed:
    """The DDL that takes away copies that have not taken their place."""
    names = sql.SQL(", ").join(quoted(*name) for name in reversed(copies(sync_name)))
    return sql.SQL(_SQL["drop_copies"]).format(copies=names)


def _columns(connection: Connection, oid: int) -> list[Column]:
    return [(name, kind, like) for name, kind, like in connection.execute(_SQL["columns"], {"oid": oid})]


def _declared(column: KeyColumn) -> Column:
    return column.name, column.type, list(column.collation) if column.collation else None


def _oid_of(connection: Connection, name: Name) -> int | None:
    row = connection.execute(_SQL["oid"], {"name": quoted_name(*name)}).fetchone()
    return row[0] if row else None


def _is_done_at_once(connection: Connection, bound: BoundSync, oid: int, has: list[Column]) -> bool:
    """Whether the target's columns become those of the key without a look at its rows."""
    names = [name for name, *_ in has]
    if any(was != column.name and column.name in names for was, column in zip(names, bound.key, strict=True)):
        return False  # columns that change places
    if [was[1:] for was in has] == [_declared(column)[1:] for column in bound.key]:
        return True
    (evaluates,) = connection.execute(_SQL["has_expressions"], {"oid": oid}).fetchone() or (True,)
    # A foreign key between two tables would be checked again, row by row.
    return not evaluates and len(bound.tables) == 1 and _keeps_its_files(connection, bound.key, has)


def _keeps_its_files(connection: Connection, key: Sequence[KeyColumn], has: list[Column]) -> bool:
    """Whether Postgres gives columns other types without writing table and index again. It is asked: an empty
    table of the old key is given the new one, in a transaction that is rolled back."""
    names = [quoted(f"k{place}") for place in range(len(has))]
    columns = [sql.SQL("{} {}").format(name, _typed(was)) for name, was in zip(names, has, strict=True)]
    parts = {"columns": sql.SQL(", ").join(columns), "names": sql.SQL(", ").join(names)}
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(sql.SQL(_SQL["probe"]).format(**parts), ())
            before = connection.execute(_SQL["files"]).fetchone()
            for name, column in zip(names, key, strict=True):
                connection.execute(_retyping(quoted("pg_temp", "freshvec_probe"), name, column), ())
            return before == connection.execute(_SQL["files"]).fetchone()
    except psycopg.errors.DatatypeMismatch:  # Postgres makes none of the other
        return False


def _in_place(bound: BoundSync, has: list[Column]) -> list[sql.Composed]:
    """The DDL that makes the target's columns those of the key."""
    ddl = []
    for was, column in zip(has, bound.key, strict=True):
        for table in bound.tables:
            if was[0] != column.name:
                names = {"column": quoted(was[0]), "name": quoted(column.name)}
                ddl.append(sql.SQL(_SQL["rename"]).format(table=quoted(*table), **names))
            if was[1:] != _declared(column)[1:]:
                ddl.append(_retyping(quoted(*table), quoted(column.name), column))
    return ddl


def _retyping(table: sql.Composable, name: sql.Composable, column: KeyColumn) -> sql.Composed:
    return sql.SQL(_SQL["retype"]).format(table=table, column=name, type=column.declared)


def _copying(bound: BoundSync, has: list[Column], kept_as: str, places: Sequence[Name]) -> list[sql.Composed]:
    """The DDL that fills the copies: a column by its name, where the key has the same ones in another order,
    else by its place. Before Postgres 16 nothing tells which values the new types take: they stay empty."""
    if bound.server_version < 160000:
        return []
    names = [name for name, *_ in has]
    if set(names) == set(bound.key_columns):
        names = list(bound.key_columns)
    texts = [sql.SQL("{}::text").format(quoted("t", name)) for name in names]
    valid = [
        sql.SQL("pg_input_is_valid({}, {})").format(text, sql.Literal(column.type))
        for text, column in zip(texts, bound.key, strict=True)
    ]
    parts = {
        "keys": sql.SQL(", ").join(bound.keys()),
        "new_keys": sql.SQL(", ").join(c.cast(text) for c, text in zip(bound.key, texts, strict=True)),
        "are_valid": sql.SQL(" AND ").join(valid),
    }
    ddl = []
    for copy, table, kept in zip(places, bound.tables, ((kept_as, *_OF_ROWS), _OF_PASSAGES), strict=False):
        columns = sql.SQL(", ").join(quoted(name) for name in kept)
        names_of = {"copy": quoted(*copy), "table": quoted(*table), "kept": columns}
        ddl.append(sql.SQL(_SQL["copy"]).format(**names_of, **parts))
    return ddl


def _move(copy: Name, table: Name) -> sql.Composed:
    schema, name = table
    moved = quoted(schema, copy[1])
    given = {"copy": quoted(*copy), "schema": quoted(schema), "moved": moved, "name": quoted(name)}
    return sql.SQL(_SQL["move"]).format(**given)


def _typed(column: Column) -> sql.Composable:
    _, kind, collation = column
    if collation is None:
        return verbatim(kind)
    return sql.SQL("{} COLLATE {}").format(verbatim(kind), quoted(*collation))
