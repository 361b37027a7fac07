"""Binding: what a sync's source table is, read from the catalogue."""

from freshvec.config import Sync, split_name
from freshvec.db import Connection, queries, translated
from freshvec.errors import SchemaError
from freshvec.records import Model
from freshvec.source.bound import BoundSync

_SQL = queries("source/bind")
_TARGET_COLUMNS = {"embedding", "content_hash", "fingerprint", "fence", "encode_error", "embedded_at"}


def bind(connection: Connection, sync: Sync, model: Model, sync_id: int = 0) -> BoundSync:
    """Resolve a sync against the database. Raises SchemaError or DatabaseError naming what to change."""
    with translated("inspect", f"table {sync.table}"):
        oid, schema, table = _relation(connection, sync)
        key_columns, key_types = _key(connection, sync, oid)
        columns = [row[0] for row in connection.execute(_SQL["columns"], {"oid": oid})]
        relations = connection.execute(_SQL["relations"], {"oid": oid}).fetchall()
        _check_columns(sync, columns, key_columns)
        bound = BoundSync(
            sync_id,
            sync,
            model,
            oid,
            (schema, table),
            key_columns,
            key_types,
            tuple((a, b) for a, b in relations),
            _vector_schema(connection, sync),
        )
    with translated(f"read the text of sync {sync.name!r} from", sync.table):
        connection.execute(bound.compose(_SQL["check_text"]), ())
    return bound


def _refused(sync: Sync, problem: str, remedy: str) -> SchemaError:
    return SchemaError(f"bind sync {sync.name!r} to", sync.table, problem, remedy)


def _relation(connection: Connection, sync: Sync) -> tuple[int, str, str]:
    """Oid, schema and name of the source table."""
    schema, table = split_name(sync.table)
    row = connection.execute(_SQL["relation"], {"schema": schema, "table": table}).fetchone()
    if row is None:
        raise _refused(
            sync,
            "there is no such table",
            "Create it, or correct `table` (schema.table; quote unusual names).",
        )
    oid, schema, table, kind = row
    if kind not in ("r", "p"):
        problem = "it is a view or another kind of relation, not a table"
        raise _refused(sync, problem, "Name the table whose rows change.")
    return oid, schema, table


def _key(connection: Connection, sync: Sync, oid: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and types of the key columns."""
    row = connection.execute(_SQL["key"], {"oid": oid}).fetchone()
    if row is None:
        problem = "it has no primary key and no unique index on NOT NULL columns"
        raise _refused(sync, problem, f"Give it one: ALTER TABLE {sync.table} ADD PRIMARY KEY (…);")
    return tuple(row[1]), tuple(row[2])


def _check_columns(sync: Sync, columns: list[str], key: tuple[str, ...]) -> None:
    for column in sync.columns or ():
        if column not in columns:
            raise _refused(sync, f"it has no column {column!r}", f"Its columns are: {', '.join(columns)}.")
    taken = set(key) & _TARGET_COLUMNS
    if taken:
        problem = f"its key column {min(taken)!r} is also a column of the target"
        raise _refused(sync, problem, "Rename the key column.")


def _vector_schema(connection: Connection, sync: Sync) -> str | None:
    """The schema of pgvector's types; None where it is not installed, and not needed."""
    found: tuple[str | None, bool]
    found = connection.execute(_SQL["vector_schema"]).fetchone() or (None, False)
    schema, is_available = found
    if schema is None and sync.target.type != "real[]":
        remedy = (
            "Run CREATE EXTENSION vector; as a superuser"
            if is_available
            else "Install pgvector on the server"
        )
        raise _refused(
            sync,
            f"type {sync.target.type} needs pgvector, which is not there",
            f'{remedy}, or write target = {{ type = "real[]" }}.',
        )
    return schema
