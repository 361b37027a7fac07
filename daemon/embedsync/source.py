"""What a source table is, read from the catalogue, and the SQL fragments every query about it shares."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from embedsync.config import Sync, split_name
from embedsync.db import Connection, queries, quoted, translated, verbatim
from embedsync.errors import SchemaError
from embedsync.records import Key

_SQL = queries("source")
_BLANK = r"E' \t\r\n\f'"
# A token is rarely longer than a few letters: this many characters a token hold more than a model reads,
# and keep a page of megabyte texts from filling the memory.
CHARACTERS_PER_TOKEN = 100
_SAMPLED = 20  # times as many rows are looked at as a sample takes


@dataclass(frozen=True)
class Model:
    """What the database side needs to know of a model."""

    name: str
    dimension: int
    max_tokens: int
    fingerprint: bytes


@dataclass(frozen=True)
class BoundSync:
    """A sync bound to the database: names resolved, key and types known. `id` is 0 until it is applied."""

    id: int
    sync: Sync
    model: Model
    source_oid: int
    source_name: tuple[str, str]
    key_columns: tuple[str, ...]
    key_types: tuple[str, ...]
    relations: tuple[tuple[str, str], ...]
    vector_schema: str | None

    @property
    def name(self) -> str:
        return self.sync.name

    @property
    def target_name(self) -> tuple[str, str]:
        schema, table = self.sync.target_name
        return schema or self.source_name[0], table

    @property
    def view_name(self) -> tuple[str, str]:
        return view_of(self.target_name)

    @property
    def vector_type(self) -> sql.Composable:
        """The embedding column's type, qualified, since our sessions search pg_catalog alone."""
        if self.sync.target.type == "real[]":
            return sql.SQL("real[]")
        return sql.SQL("{}({})").format(quoted(self.vector_schema, self.sync.target.type), sql.Literal(self.model.dimension))

    @property
    def text(self) -> sql.Composable:
        """The text of a row over the source's own column names; NULL where there is nothing to embed."""
        if self.sync.columns is not None:
            rendered: sql.Composable = sql.SQL("concat_ws(E'\\n', {})").format(_list(map(quoted, self.sync.columns)))
        else:
            rendered = sql.SQL("({})::text").format(verbatim(self.sync.expression or ""))
        wanted: sql.Composable = sql.SQL("btrim({}, " + _BLANK + ") <> ''").format(rendered)
        if self.sync.where:
            wanted = sql.SQL("({}) AND {}").format(verbatim(self.sync.where), wanted)
        return sql.SQL("CASE WHEN {} THEN {} END").format(wanted, rendered)

    @property
    def max_characters(self) -> int:
        return self.model.max_tokens * CHARACTERS_PER_TOKEN

    def keys(self, alias: str | None = None) -> list[sql.Composable]:
        return [quoted(alias, column) for column in self.key_columns]

    def compose(self, template: Any, **more: sql.Composable) -> sql.Composed:
        """A query template with this sync's names filled in. Placeholders for values stay."""
        numbered = [quoted(f"k{i}") for i, _ in enumerate(self.key_columns, 1)]
        types = [verbatim(name) for name in self.key_types]
        pairs = list(zip(self.key_columns, numbered, types, strict=True))
        fragments: dict[str, sql.Composable] = {
            "sync_id": sql.Literal(self.id),
            "sync_name": sql.Literal(self.name),
            "source": quoted(*self.source_name),
            "target": quoted(*self.target_name),
            "view": quoted(*self.view_name),
            "queue": quoted("embedsync", f"queue_{self.name}"),
            "capture": quoted("embedsync", f"capture_{self.name}"),
            "text": self.text,
            "hash": sql.SQL("substring(sha256(convert_to(embedsync_text, 'UTF8')) FROM 1 FOR 16)"),
            "unchanged": sql.SQL(
                "coalesce(t.fingerprint = %(fingerprint)s AND t.encode_error IS NULL"
                " AND t.content_hash IS NOT DISTINCT FROM d.embedsync_hash"
                " AND (t.embedding IS NULL) = (d.embedsync_hash IS NULL), false)"
            ),
            "max_characters": sql.Literal(self.max_characters),
            "vector_type": self.vector_type,
            "keys": _list(self.keys()),
            "d_keys": _list(self.keys("d")),
            "t_keys": _list(self.keys("t")),
            "d_key_texts": _list([sql.SQL("{}::text").format(key) for key in self.keys("d")]),
            "t_key_texts": _list([sql.SQL("{}::text").format(key) for key in self.keys("t")]),
            "k": _list(numbered),
            "k_texts": _list([sql.SQL("{}::text").format(k) for k in numbered]),
            "k_text_columns": _list([sql.SQL("{} text NOT NULL").format(k) for k in numbered]),
            "k_typed_columns": _list([sql.SQL("{} {}").format(k, kind) for _, k, kind in pairs]),
            "key_columns_typed": _list([sql.SQL("{} {} NOT NULL").format(quoted(c), kind) for c, _, kind in pairs]),
            # rows of key texts given as one text[] parameter a key column
            "given_keys": sql.SQL("unnest({}) AS k ({})").format(
                _list([sql.SQL("%({})s::text[]").format(k_name(i)) for i, _ in enumerate(pairs, 1)]), _list(numbered)
            ),
            "k_typed": _list([sql.SQL("k.{}::{}").format(k, kind) for _, k, kind in pairs]),
            "d_is_k": _all([sql.SQL("d.{} = k.{}::{}").format(quoted(c), k, kind) for c, k, kind in pairs]),
            "t_is_k": _all([sql.SQL("t.{} = k.{}::{}").format(quoted(c), k, kind) for c, k, kind in pairs]),
            "d_is_t": _all([sql.SQL("d.{0} = t.{0}").format(quoted(c)) for c, _, _ in pairs]),
            "after": _list([sql.SQL("%({})s::text::{}").format(k_name(i), kind) for i, (_, _, kind) in enumerate(pairs, 1)]),
        }
        return sql.SQL(template).format(**(fragments | more))

    def key_arrays(self, keys: list[Key]) -> dict[str, list[str]]:
        """Parameters for `{given_keys}`: one list of texts a key column."""
        return {f"k{i + 1}": [key[i] for key in keys] for i in range(len(self.key_columns))}

    def key_values(self, key: Key) -> dict[str, str]:
        """Parameters for `{after}`."""
        return {f"k{i}": part for i, part in enumerate(key, 1)}


def view_of(target: tuple[str, str]) -> tuple[str, str]:
    """The name of a target's view."""
    schema, table = target
    return schema, table.removesuffix("_embedding") + "_embedded"


def k_name(place: int) -> sql.SQL:
    """The placeholder's name for the key column at `place`, from 1."""
    return sql.SQL(f"k{place}")


def _list(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)


def _all(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(" AND ").join(parts)


def bind(connection: Connection, sync: Sync, model: Model, sync_id: int = 0) -> BoundSync:
    """Resolve a sync against the database. Raises SchemaError or DatabaseError naming what to change."""
    schema, table = split_name(sync.table)
    with translated("inspect", f"table {sync.table}"):
        found = connection.execute(_SQL["relation"], {"schema": schema, "table": table}).fetchone()
        if found is None:
            raise SchemaError(
                f"bind sync {sync.name!r} to", sync.table, "there is no such table",
                "Create it, or correct `table` (schema.table; quote unusual names).",
            )  # fmt: skip
        oid, schema, table, kind = found
        if kind not in ("r", "p"):
            raise SchemaError(
                f"bind sync {sync.name!r} to", sync.table, "it is a view or another kind of relation, not a table",
                "Name the table whose rows change.",
            )  # fmt: skip
        key = connection.execute(_SQL["key"], {"oid": oid}).fetchone()
        if key is None:
            raise SchemaError(
                f"bind sync {sync.name!r} to", sync.table, "it has no primary key and no unique index on NOT NULL columns",
                f"Give it one: ALTER TABLE {sync.table} ADD PRIMARY KEY (…);",
            )  # fmt: skip
        columns = [row[0] for row in connection.execute(_SQL["columns"], {"oid": oid})]
        relations = connection.execute(_SQL["relations"], {"oid": oid}).fetchall()
        found = connection.execute(_SQL["vector_schema"]).fetchone()
    _check_columns(sync, columns, tuple(key[1]))
    vector_schema, available = found or (None, False)
    if vector_schema is None and sync.target.type != "real[]":
        remedy = "Run CREATE EXTENSION vector; as a superuser" if available else "Install pgvector on the server"
        raise SchemaError(
            f"bind sync {sync.name!r} to", sync.table, f"type {sync.target.type} needs pgvector, which is not there",
            f'{remedy}, or write target = {{ type = "real[]" }}.',
        )  # fmt: skip
    bound = BoundSync(
        sync_id, sync, model, oid, (schema, table), tuple(key[1]), tuple(key[2]), tuple((a, b) for a, b in relations),
        vector_schema,
    )  # fmt: skip
    with translated(f"read the text of sync {sync.name!r} from", sync.table):
        connection.execute(bound.compose(_SQL["check_text"]), ())
    return bound


def _check_columns(sync: Sync, columns: list[str], key: tuple[str, ...]) -> None:
    for column in sync.columns or ():
        if column not in columns:
            raise SchemaError(
                f"bind sync {sync.name!r} to", sync.table, f"it has no column {column!r}",
                f"Its columns are: {', '.join(columns)}.",
            )  # fmt: skip
    taken = set(key) & {"embedding", "content_hash", "fingerprint", "write_token", "encode_error", "embedded_at"}
    if taken:
        raise SchemaError(
            f"bind sync {sync.name!r} to", sync.table, f"its key column {min(taken)!r} is also a column of the target",
            "Rename the key column.",
        )  # fmt: skip


def estimated_rows(connection: Connection, bound: BoundSync) -> int:
    """The statistics' row count of the source, -1 where it was never analysed."""
    row = connection.execute(_SQL["estimated_rows"], {"oid": bound.source_oid}).fetchone()
    return int(row[0]) if row else -1


def sample(connection: Connection, bound: BoundSync, rows: int) -> list[str]:
    """At most `rows` texts of the sync, spread evenly over the table; fewer where there are fewer. Raises DatabaseError."""
    estimate = estimated_rows(connection, bound)
    few = 100.0 * _SAMPLED * rows / estimate if estimate > _SAMPLED * rows else 100.0
    query = bound.compose(_SQL["sample"])
    texts: list[str] = []
    for percent in (few, 100.0):  # all of the table where `where` leaves too little of a part of it
        with translated(f"read texts of sync {bound.name!r} from", bound.sync.table):
            texts = [text for (text,) in connection.execute(query, {"rows": rows, "percent": percent})]
        if len(texts) >= rows or percent == 100.0:
            break
    return texts
