"""Binding: what a sync's source table is, read from the catalogue."""

from dataclasses import replace

from freshvec.config import Sync
from freshvec.db import Connection, queries, quoted, translated
from freshvec.errors import SchemaError, closest
from freshvec.records import Model
from freshvec.source import vector_column
from freshvec.source.bound import BoundSync, Relation
from freshvec.source.expression import Dependence, dependence
from freshvec.source.key import KeyColumn
from freshvec.source.locks import attempt
from freshvec.storage import split_name

_SQL = queries("source/bind")
_TARGET_COLUMNS = {
    "embedding",
    "content_hash",
    "fingerprint",
    "fence",
    "encode_error",
    "embedded_at",
}
# Where texts are cut, also the arguments of the function that finds rows by their passages.
_CHUNK_COLUMNS = {"passages", "passage", "chunk", "chunk_start", "chunk_end", "distance"}
_CHUNK_COLUMNS |= {"searched", "wanted", "candidates"}


def bind(connection: Connection, sync: Sync, model: Model, wait: float = 10.0) -> BoundSync:
    """Resolve a sync against the database. A table that is altered meanwhile is waited for, so many seconds.

    Raises SchemaError or DatabaseError naming what to change, and LockedError.
    """
    with translated("inspect", f"table {sync.table}"):
        encoding, version = connection.execute(_SQL["server"]).fetchone() or ("", 0)
        if encoding == "SQL_ASCII":
            problem = "the database has no encoding (SQL_ASCII), so its bytes are no text"
            raise _refused(sync, problem, "Move the table to a database with ENCODING 'UTF8'.")
        _check_chunk(sync, model)
        oid, name, is_child, has_row_security = _relation(connection, sync)
        key = _key(connection, sync, oid)
        _check_types(connection, sync, key)
        columns = connection.execute(_SQL["columns"], {"oid": oid}).fetchall()
        _check_columns(sync, [column for column, _ in columns], {column.name for column in key})
        relations = _relations(connection, sync, oid)
        bound = BoundSync(
            id=0,
            sync=sync,
            model=model,
            source_oid=oid,
            source_name=name,
            key=key,
            depends=Dependence(),
            relations=relations,
            is_family=is_child or len(relations) > 1 or relations[0].is_partitioned,
            has_row_security=has_row_security,
            vector_schema=_vector_schema(connection, sync),
            encoding=encoding,
            server_version=version,
        )
    reading = translated(f"read the text of sync {sync.name!r} from", sync.table)
    with reading, attempt(connection, [name], "ACCESS SHARE", wait):
        names = {number: column for column, number in columns}
        depends = dependence(connection, sync, oid, bound.text, quoted(*name), names)
        # Only now: planning a query evaluates what is constant in it, by functions that may be another's.
        connection.execute(bound.compose(_SQL["check_text"]), ())
    bound = replace(bound, depends=depends)
    return replace(bound, lacks_column=not vector_column.is_there(connection, bound))


def _refused(sync: Sync, problem: str, remedy: str) -> SchemaError:
    return SchemaError(f"bind sync {sync.name!r} to", sync.table, problem, remedy)


def _relation(connection: Connection, sync: Sync) -> tuple[int, tuple[str, str], bool, bool]:
    """Oid and name of the source table, whether it has a parent, and whether it has row security."""
    schema, table = split_name(sync.table)
    row = connection.execute(_SQL["relation"], {"schema": schema, "table": table}).fetchone()
    if row is None:
        remedy = "Create it, or correct `table` (schema.table; quote unusual names)."
        raise _refused(sync, f"there is no such table{_alike(connection, table)}", remedy)
    oid, schema, table, kind, is_child, has_row_security = row
    if kind not in ("r", "p"):
        problem = "it is a view or another kind of relation, not a table"
        raise _refused(sync, problem, "Name the table whose rows change.")
    return oid, (schema, table), is_child, has_row_security


def _alike(connection: Connection, table: str) -> str:
    """The table that was probably meant, as the end of a sentence."""
    named = dict[str, str](connection.execute(_SQL["tables"]).fetchall())
    near = closest(table.lower(), named)
    return "" if near is None else f"; there is {named[near]}"


def _key(connection: Connection, sync: Sync, oid: int) -> tuple[KeyColumn, ...]:
    rows = connection.execute(_SQL["key"], {"oid": oid}).fetchall()
    if rows and (index := rows[0][-2]) is not None:
        problem = f"its unique index {index} orders or compares keys otherwise than their columns do"
        remedy = "Give it another, of the columns' own collations and the default operator classes."
        raise _refused(sync, problem, remedy)
    if operator := next((row[-1] for row in rows if row[-1] is not None), None):
        problem = f"its key is compared by {operator}, by which Postgres can neither merge nor hash rows"
        remedy = "Give it another key, or its operator MERGES, or HASHES and a class; no function in SQL."
        raise _refused(sync, problem, remedy)
    if rows:
        return tuple(
            KeyColumn(
                name,
                number,
                kind,
                type_oid,
                modifier,
                tuple(collation) if collation else None,
                tuple(equal),
                tuple(more),
                operator,
                run,
            )
            for name, number, kind, type_oid, modifier, collation, equal, more, operator, run, _, _ in rows
        )
    deferrable = connection.execute(_SQL["deferrable"], {"oid": oid}).fetchone()
    if deferrable:
        problem = f"its key {deferrable[0]!r} is DEFERRABLE, so two rows may share a key for a while"
        raise _refused(sync, problem, "Give it a unique index on NOT NULL columns that is checked at once.")
    problem = "it has no primary key and no unique index on NOT NULL columns"
    raise _refused(sync, problem, f"Give it one: ALTER TABLE {sync.table} ADD PRIMARY KEY (…);")


def _check_types(connection: Connection, sync: Sync, key: tuple[KeyColumn, ...]) -> None:
    """A type's owner may give it casts, a domain's its checks: as a superuser we would run them."""
    types = {"types": [column.type_oid for column in key]}
    row = connection.execute(_SQL["types_of_others"], types).fetchone()
    if row is not None:
        problem = (
            f"the type {row[0]} of its key is {row[1]}'s, whose casts and checks would run as a superuser"
        )
        raise _refused(sync, problem, "Run freshvec as a role of its own (docs/operations.md, Roles).")


def _relations(connection: Connection, sync: Sync, oid: int) -> tuple[Relation, ...]:
    """The table itself, then its partitions and children."""
    rows = connection.execute(_SQL["relations"], {"oid": oid}).fetchall()
    for _, schema, table, kind in rows:
        if kind == "f":
            child = f"its partition or child {schema}.{table} is a foreign table"
            problem = f"{child}, whose changes no trigger here sees"
            raise _refused(sync, problem, "Detach it, or name the tables that are here.")
    return tuple(Relation(number, (schema, table), kind == "p") for number, schema, table, kind in rows)


def _check_chunk(sync: Sync, model: Model) -> None:
    if sync.chunk is not None and (sync.chunk.tokens or 0) > model.max_tokens:
        problem = (
            f"chunk.tokens is {sync.chunk.tokens:,}, but {model.name} reads {model.max_tokens:,} at most"
        )
        raise _refused(sync, problem, 'Write fewer, or chunk = "auto" for as many as it reads.')


def _check_columns(sync: Sync, columns: list[str], key: set[str]) -> None:
    for column in sync.columns or ():
        if column not in columns:
            raise _refused(sync, f"it has no column {column!r}", f"Its columns are: {', '.join(columns)}.")
    ours = _TARGET_COLUMNS if sync.chunk is None else _TARGET_COLUMNS | _CHUNK_COLUMNS
    ours = ours if sync.target.column is None else ours | {"vector_hash"}
    taken = {name for name in key if name in ours or name.startswith("freshvec_")}
    if taken:
        problem = f"its key column {min(taken)!r} has a name that freshvec needs itself"
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
