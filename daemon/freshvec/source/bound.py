"""A sync bound to the database, and the SQL fragments that every query about it shares."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from psycopg import sql

from freshvec.arrays import TextArray
from freshvec.config import Sync
from freshvec.db import BODY_QUOTE, finished, quoted
from freshvec.errors import SchemaError
from freshvec.records import Key, Model
from freshvec.source import blank, key_fragments, layout, trusted
from freshvec.source.edition import Edition, view_of
from freshvec.source.expression import Dependence
from freshvec.source.key import KeyColumn
from freshvec.source.text import hash_of, rendered_of, text_of

# A token is rarely longer than a few letters: this many characters per token hold more than a model reads,
# and keep a page of megabyte texts from filling the memory.
CHARACTERS_PER_TOKEN = 100
_WHOLE = 2**30  # characters; Postgres has no longer texts


@dataclass(frozen=True)
class Relation:
    """A table that holds rows of the source: itself, a partition or a child."""

    oid: int
    name: tuple[str, str]
    is_partitioned: bool


@dataclass(frozen=True)
class BoundSync:
    """A sync bound to the database: names resolved, key and types known. `id` is 0 until it is applied.

    `depends` is what the text is made of. `lacks_column`: the column of the source
    that vectors are to be written to is not there yet. `is_family`: the source has partitions, children or a
    parent, so that a statement on another table may change its rows. `edition` is None of a sync that was
    never swapped.
    """

    id: int
    sync: Sync
    model: Model
    source_oid: int
    source_name: tuple[str, str]
    key: tuple[KeyColumn, ...]
    depends: Dependence
    relations: tuple[Relation, ...]
    is_family: bool
    has_row_security: bool
    vector_schema: str | None
    encoding: str
    server_version: int
    generation: int = 0
    edition: Edition | None = None
    lacks_column: bool = False

    @property
    def name(self) -> str:
        return self.sync.name

    @property
    def declared_name(self) -> str:
        """What commands know it by: that of the sync in the file, of which it may be an edition."""
        return self.edition.sync if self.edition else self.name

    @property
    def key_columns(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.key)

    @property
    def has_spellings(self) -> bool:
        """Whether one key may be printed in several ways, as 1.0 and 1.00 are one numeric."""
        return not all(column.has_one_spelling for column in self.key)

    @property
    def watched(self) -> tuple[str, ...]:
        """The columns whose change is a change of the text."""
        return self.depends.watched

    @property
    def target_name(self) -> tuple[str, str]:
        schema, table = self.sync.target_name
        return schema or self.source_name[0], table

    @property
    def vectors_name(self) -> tuple[str, str]:
        """The relation that the vectors are in."""
        return layout.vectors_of(self.sync, self.target_name, self.source_name)

    @property
    def relied_on(self) -> tuple[str, ...]:
        """The columns of the source that anything of ours names."""
        return tuple(sorted({*self.key_columns, *self.watched, *layout.own_column(self.sync)}))

    @property
    def tables(self) -> tuple[tuple[str, str], ...]:
        """What is made for its rows: the target, and what else vectors are in."""
        return (self.target_name,) if self.sync.chunk is None else (self.target_name, self.vectors_name)

    @property
    def is_shown(self) -> bool:
        """Whether the view shows these vectors; else view and its function are another edition's."""
        return self.edition is None or self.edition.is_shown

    @property
    def view_name(self) -> tuple[str, str]:
        return self.edition.view if self.edition else view_of(self.target_name)

    @property
    def readable(self) -> tuple[tuple[str, str], ...]:
        """What who may read the source may read, too: its tables, and the view that shows them."""
        return (*self.tables, self.view_name) if self.is_shown else self.tables

    @property
    def vector_type(self) -> sql.Composable:
        """The vectors' type, qualified, since our sessions search pg_catalog alone."""
        if self.sync.target.type == "real[]":
            return sql.SQL("real[]")
        name = quoted(self.vector_schema, self.sync.target.type)
        return sql.SQL("{}({})").format(name, sql.Literal(self.model.dimension))

    @property
    def text(self) -> sql.Composable:
        """The text of a row over the source's own column names; NULL where there is nothing to embed."""
        return text_of(self.sync, self.encoding)

    @property
    def max_characters(self) -> int:
        """Characters of a text that are read at first; only where they do not fill the model is it read
        whole. What is cut into passages is read whole at once."""
        return self.model.max_tokens * CHARACTERS_PER_TOKEN if self.sync.chunk is None else _WHOLE

    def keys(self, alias: str | None = None) -> list[sql.Composable]:
        """The key columns, quoted, behind `alias` if one is given."""
        return [quoted(alias, column.name) for column in self.key]

    def compose(self, template: Any, **more: sql.Composable) -> sql.Composed:
        """A query template with this sync's names filled in. Placeholders for values stay.

        In all templates `d` is a row of the source, `t` of the target, and `k` a key that was given. It comes
        as one text, since the driver puts a query of many parts together each time that it is run.

        Raises SchemaError where a name would end the body of a function that it stands in, so that its rest
        would be run by itself, with our rights.
        """
        return sql.Composed([finished(sql.SQL(template).format(**(self._fragments | self._safe(more))))])

    def _safe(self, parts: dict[str, sql.Composable]) -> dict[str, sql.Composable]:
        """The same, as finished text. Raises SchemaError as `compose` does."""
        texts = {name: finished(part) for name, part in parts.items()}
        for text in (part.as_string() for part in texts.values()):
            if BODY_QUOTE in text:
                problem = f"a name in {text} has {BODY_QUOTE} in it, which ends a function's text"
                raise SchemaError(f"bind sync {self.name!r} to", self.sync.table, problem, "Rename it.")
        return texts

    @cached_property
    def _fragments(self) -> dict[str, sql.Composable]:
        """All that a template may name, as finished text: a binding composes dozens of queries of it."""
        parts = self._names() | layout.fragments(self) | self._text_parts() | key_fragments.fragments(self)
        return self._safe(parts)

    def _names(self) -> dict[str, sql.Composable]:
        """What the sync's objects are called."""
        comma = sql.SQL(", ")
        queue_name = sql.Literal(quoted("freshvec", f"queue_{self.name}").as_string(None))
        return {
            # The target, and for what reads passages these as well, which may be lacking.
            "is_trusted": trusted.condition(self.tables[:1], queue_name),
            "are_trusted": trusted.condition(self.tables, queue_name),
            "sync_name": sql.Literal(self.name),
            "source": quoted(*self.source_name),
            "target": quoted(*self.target_name),
            "vectors": quoted(*self.vectors_name),
            "tables": comma.join(quoted(*table) for table in self.tables),
            "view": quoted(*self.view_name),
            "queue": quoted("freshvec", f"queue_{self.name}"),
            "queue_name": queue_name,
            "capture": quoted("freshvec", f"capture_{self.name}"),
            "capture_row": quoted("freshvec", f"capture_row_{self.name}"),
            "is_intact": quoted("freshvec", f"is_intact_{self.name}"),
            "was_intact": quoted("freshvec", f"was_intact_{self.name}"),
            "embedded": quoted("freshvec", f"embedded_{self.declared_name}"),
            "nearest": quoted("freshvec", f"nearest_{self.declared_name}"),
            "readable": comma.join(quoted(*name) for name in self.readable),
            "visible": quoted("freshvec", f"visible_{self.name}"),
            "answered": quoted("freshvec", f"answered_{self.name}"),
            "settled": quoted("freshvec", f"settled_{self.name}"),
            "guard": quoted("freshvec", f"guard_{self.name}"),
        }

    def _text_parts(self) -> dict[str, sql.Composable]:
        """The text, its hash, and what is made of them."""
        cut = layout.cutting(self.sync, self.model.max_tokens)
        return {
            "text": self.text,
            # The same in two steps, for queries over many rows: what is rendered over the source's columns,
            # once, and the text made of it.
            "rendered": rendered_of(self.sync),
            "shown": sql.SQL("CASE WHEN {} THEN freshvec_rendered END").format(
                blank.shows_something(sql.SQL("freshvec_rendered"), self.encoding)
            ),
            "hash": hash_of("freshvec_text", cut),
            "d_hash": hash_of("d.freshvec_text", cut),
            # A row without text is fresh where the target has no row of it.
            "unchanged": sql.SQL(
                "CASE WHEN d.freshvec_hash IS NULL THEN t.fence IS NULL AND NOT {}"
                " ELSE coalesce(t.content_hash = d.freshvec_hash AND t.fingerprint = %(fingerprint)s"
                " AND t.encode_error IS NULL AND {}, false) END"
            ).format(layout.keeps_a_vector(self), layout.has_its_vectors(self)),
            "max_characters": sql.Literal(self.max_characters),
            "vector_type": self.vector_type,
            "dimension": sql.Literal(self.model.dimension),
            "fingerprint": sql.Literal(self.model.fingerprint),
        }

    def same(self, left: list[sql.Composable], right: list[sql.Composable]) -> sql.Composable:
        """Whether two keys are one, column by column, as the key's index decides it."""
        pairs = zip(self.key, left, right, strict=True)
        return sql.SQL(" AND ").join(column.equals(one, other) for column, one, other in pairs)

    def key_arrays(self, keys: list[Key]) -> dict[str, TextArray]:
        """Parameters for `{given_keys}`: one array of texts per key column."""
        return {f"k{i + 1}": TextArray([key[i] for key in keys]) for i in range(len(self.key))}

    def key_values(self, key: Key) -> dict[str, str]:
        """Parameters for `{beyond_after}`."""
        return {f"k{i}": part for i, part in enumerate(key, 1)}

    def last_values(self, key: Key) -> dict[str, str]:
        """Parameters for `{up_to_last}`."""
        return {f"last{i}": part for i, part in enumerate(key, 1)}
