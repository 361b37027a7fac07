"""The survey: tables that hold texts, and some rows of the largest. Bounded in time on any database."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from psycopg import sql

from freshvec.db import Connection, queries, quoted, translated
from freshvec.errors import DatabaseError, SchemaError
from freshvec.proposal.columns import Column, judged
from freshvec.source.extent import MOST_TIMES, Extent, measure
from freshvec.storage import split_name, written_name

_SQL = queries("proposal/survey")
_BIND = queries("source/bind")
_MOST = 12  # tables that are looked into, the largest ones
_ROWS = 400  # of each
_CHARACTERS = 4_000  # of a text
_TOO_FEW = _ROWS // 4


@dataclass(frozen=True)
class Server:
    """The database, who looks at it, and its pgvector: `vector` is the version, `available` one that could be
    installed."""

    database: str
    user: str
    version: str
    vector: str | None
    available: str | None
    has_halfvec: bool

    @property
    def vector_type(self) -> str:
        """The type of vectors that takes least room here."""
        if self.vector is None and self.available is None:
            return "real[]"
        return "halfvec" if self.has_halfvec or self.vector is None else "vector"


@dataclass(frozen=True)
class Table:
    """A table with texts. `trouble` says why it cannot be kept as it is, `remedy` what mends that. `vectors`
    are columns that hold some already."""

    oid: int
    schema: str
    name: str
    is_partitioned: bool
    extent: Extent | None = None
    columns: tuple[Column, ...] = ()
    rows: tuple[tuple[str | None, ...], ...] = ()
    trouble: str = ""
    remedy: str = ""
    vectors: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """As it is written in the configuration: quoted where it must be."""
        parts = (self.schema, self.name)
        return ".".join(written_name(part) for part in parts)

    @property
    def prose(self) -> tuple[Column, ...]:
        """The columns that are worth embedding."""
        return tuple(column for column in self.columns if column.is_prose)

    def texts(self, names: tuple[str, ...]) -> list[str | None]:
        """The sampled rows' texts, of those columns, as a sync would join them."""
        places = [place for place, column in enumerate(self.columns) if column.name in names]
        joined = ("\n".join(row[place] or "" for place in places).strip() for row in self.rows)
        return [text or None for text in joined]


@dataclass(frozen=True)
class Survey:
    """What was found. `unseen` are tables that were not looked into, since others are larger."""

    server: Server
    tables: tuple[Table, ...]
    unseen: int


def survey(connection: Connection, names: tuple[str, ...] = ()) -> Survey:
    """Look at the tables of those names, or at the largest. Raises DatabaseError, SchemaError for a name that
    no table with texts has."""
    with translated("look at", "the database"):
        connection.execute(_SQL["within"])
        server = Server(*(connection.execute(_SQL["server"]).fetchone() or ("", "", "", None, None, False)))
        found = [row for name in names or (None,) for row in _listed(connection, name)]
        tables = tuple(_looked_into(connection, row, server.user) for row in found)
    unseen = found[0][-1] - len(found) if found and not names else 0
    return Survey(server, tables, unseen)


def _listed(connection: Connection, name: str | None) -> Iterator[tuple[Any, ...]]:
    schema, table = (None, None) if name is None else split_name(name)
    given = {"schema": schema or ("public" if table else None), "table": table, "most": _MOST}
    rows = connection.execute(_SQL["tables"], given).fetchall()
    if name is not None and not rows:
        raise SchemaError(
            "look at",
            f"table {name}",
            "there is no such table, or it has no column of text",
            "Correct the name (schema.table; quote unusual names); without --table the largest are shown.",
        )
    yield from rows


def _looked_into(connection: Connection, row: tuple[Any, ...], user: str) -> Table:
    oid, schema, name, is_partitioned, is_readable, is_hidden, _ = row
    table = Table(oid, schema, name, is_partitioned)
    if not is_readable:
        whom = written_name(user)
        remedy = f"GRANT USAGE ON SCHEMA {written_name(schema)} TO {whom}; GRANT SELECT ON {{}} TO {whom};"
        return _refused(table, "this role may not read it", remedy)
    if is_hidden:
        problem = "row security hides rows of it from this role"
        return _refused(table, problem, "As a superuser: ALTER ROLE … BYPASSRLS; on the role of the URL.")
    key = connection.execute(_BIND["key"], {"oid": table.oid}).fetchall()
    if not key or any(row[-2:] != (None, None) for row in key):  # or one that no sync can be kept by
        guess = connection.execute(_SQL["key_guess"], {"oid": table.oid}).fetchone()
        added = "COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
        remedy = f"ALTER TABLE {{}} ADD {f'PRIMARY KEY ({written_name(guess[0])})' if guess else added};"
        return _refused(table, "it has no primary key and no unique index on NOT NULL columns", remedy)
    try:
        with translated("look at", table.full_name):
            return _sampled(connection, table)
    except DatabaseError as error:
        return _refused(table, f"it could not be looked at: {error.problem}", error.remedy)


def _sampled(connection: Connection, table: Table) -> Table:
    extent = measure(connection, table.oid, (table.schema, table.name))
    names = connection.execute(_SQL["columns"], {"oid": table.oid}).fetchall()
    cut, limit = sql.SQL("left({}::text, {})"), sql.Literal(_CHARACTERS)
    rows: list[tuple[str | None, ...]] = []
    for percent in extent.percents(_ROWS):
        query = sql.SQL(_SQL["sample"]).format(
            columns=sql.SQL(", ").join(cut.format(quoted(name), limit) for name, _ in names),
            table=quoted(table.schema, table.name),
            share=extent.share(percent),
            rows=sql.Literal(MOST_TIMES * _ROWS),
        )
        rows = [tuple(texts) for (texts,) in connection.execute(query, ())]
        if len(rows) >= _TOO_FEW:
            break
    columns = tuple(
        judged(name, kind, [row[place] for row in rows]) for place, (name, kind) in enumerate(names)
    )
    vectors = tuple(name for (name,) in connection.execute(_SQL["vectors"], {"oid": table.oid}))
    return replace(table, extent=extent, columns=columns, rows=tuple(rows), vectors=vectors)


def _refused(table: Table, trouble: str, remedy: str) -> Table:
    made = remedy.replace("{}", table.full_name)
    return replace(table, trouble=trouble, remedy=made)
