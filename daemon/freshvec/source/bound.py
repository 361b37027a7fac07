"""A sync bound to the database, and the SQL fragments that every query about it shares."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from freshvec.config import Sync
from freshvec.db import quoted, verbatim
from freshvec.records import Key, Model

_BLANK = r"E' \t\r\n\f'"
# A token is rarely longer than a few letters: this many characters per token hold more than a model reads,
# and keep a page of megabyte texts from filling the memory.
CHARACTERS_PER_TOKEN = 100


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
        name = quoted(self.vector_schema, self.sync.target.type)
        return sql.SQL("{}({})").format(name, sql.Literal(self.model.dimension))

    @property
    def text(self) -> sql.Composable:
        """The text of a row over the source's own column names; NULL where there is nothing to embed."""
        if self.sync.columns is not None:
            columns = _list(map(quoted, self.sync.columns))
            rendered: sql.Composable = sql.SQL("concat_ws(E'\\n', {})").format(columns)
        else:
            rendered = sql.SQL("({})::text").format(verbatim(self.sync.expression or ""))
        wanted: sql.Composable = sql.SQL("btrim({}, " + _BLANK + ") <> ''").format(rendered)
        if self.sync.where:
            wanted = sql.SQL("({}) AND {}").format(verbatim(self.sync.where), wanted)
        return sql.SQL("CASE WHEN {} THEN {} END").format(wanted, rendered)

    @property
    def max_characters(self) -> int:
        """Characters of a text that are read at first; only where they do not fill the model is it read whole."""
        return self.model.max_tokens * CHARACTERS_PER_TOKEN

    def keys(self, alias: str | None = None) -> list[sql.Composable]:
        """The key columns, quoted, behind `alias` if one is given."""
        return [quoted(alias, column) for column in self.key_columns]

    def compose(self, template: Any, **more: sql.Composable) -> sql.Composed:
        """A query template with this sync's names filled in. Placeholders for values stay.

        In all templates `d` is a row of the source, `t` of the target, and `k` a key that was given.
        """
        return sql.SQL(template).format(**(self._names() | self._text_parts() | self._key_parts() | more))

    def _names(self) -> dict[str, sql.Composable]:
        """What the sync's objects are called."""
        return {
            "sync_id": sql.Literal(self.id),
            "sync_name": sql.Literal(self.name),
            "source": quoted(*self.source_name),
            "target": quoted(*self.target_name),
            "view": quoted(*self.view_name),
            "queue": quoted("freshvec", f"queue_{self.name}"),
            "capture": quoted("freshvec", f"capture_{self.name}"),
        }

    def _text_parts(self) -> dict[str, sql.Composable]:
        """The text, its hash, and what is made of them."""
        return {
            "text": self.text,
            "hash": sql.SQL("substring(sha256(convert_to(freshvec_text, 'UTF8')) FROM 1 FOR 16)"),
            "unchanged": sql.SQL(
                "coalesce(t.fingerprint = %(fingerprint)s AND t.encode_error IS NULL"
                " AND t.content_hash IS NOT DISTINCT FROM d.freshvec_hash"
                " AND (t.embedding IS NULL) = (d.freshvec_hash IS NULL), false)"
            ),
            "max_characters": sql.Literal(self.max_characters),
            "vector_type": self.vector_type,
        }

    def _key_parts(self) -> dict[str, sql.Composable]:
        """Key columns: as lists, as texts, as typed columns, as conditions. `k1`, `k2`… stand for given ones."""
        numbered = [quoted(f"k{i}") for i, _ in enumerate(self.key_columns, 1)]
        types = [verbatim(name) for name in self.key_types]
        placeholders = [sql.SQL("%({})s").format(k_name(i)) for i, _ in enumerate(self.key_columns, 1)]
        columns = self.keys()
        given = _list(_each("{}::text[]", placeholders))
        return {
            # lists of columns
            "keys": _list(columns),
            "d_keys": _list(self.keys("d")),
            "t_keys": _list(self.keys("t")),
            "k": _list(numbered),
            # the same as texts: how keys travel between Postgres and the daemon
            "d_key_texts": _list(_each("{}::text", self.keys("d"))),
            "t_key_texts": _list(_each("{}::text", self.keys("t"))),
            "k_texts": _list(_each("{}::text", numbered)),
            "k_typed": _list(_each("k.{}::{}", numbered, types)),
            # definitions of columns
            "k_text_columns": _list(_each("{} text NOT NULL", numbered)),
            "k_typed_columns": _list(_each("{} {}", numbered, types)),
            "key_columns_typed": _list(_each("{} {} NOT NULL", columns, types)),
            # rows of key texts, given as one text[] parameter per key column
            "key_params": given,
            "given_keys": sql.SQL("unnest({}) AS k ({})").format(given, _list(numbered)),
            # conditions
            "d_is_k": _all(_each("d.{} = k.{}::{}", columns, numbered, types)),
            "t_is_k": _all(_each("t.{} = k.{}::{}", columns, numbered, types)),
            "d_is_t": _all(_each("d.{0} = t.{0}", columns)),
            "after": _list(_each("{}::text::{}", placeholders, types)),
        }

    def key_arrays(self, keys: list[Key]) -> dict[str, list[str]]:
        """Parameters for `{given_keys}`: one list of texts per key column."""
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


def _each(pattern: Any, *columns: Iterable[sql.Composable]) -> list[sql.Composed]:
    """`pattern` filled in once per key column."""
    return [sql.SQL(pattern).format(*parts) for parts in zip(*columns, strict=True)]


def _list(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)


def _all(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(" AND ").join(parts)
