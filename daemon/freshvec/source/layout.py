"""Where the vectors of a sync lie, as queries about a row of the target see it.

The target has a row for each source row that has a text. Of each layout this says how such a row shows that
it has its vectors, and which relation and column they are in. What makes, fills and searches a layout is in
`target/`.

A column of the source is others' to change as well. There the target's row keeps a digest of the vector that
we wrote, and whoever reads the row compares it. Of a text that is cut into passages it keeps their number,
and their vectors are in a table of their own.
"""

from typing import TYPE_CHECKING

from psycopg import sql

from freshvec.config import Sync
from freshvec.db import quoted
from freshvec.records import CUTTING_VERSION

if TYPE_CHECKING:
    from freshvec.source.bound import BoundSync

_SEND = {"vector": "vector_send", "halfvec": "halfvec_send"}  # of pgvector's; arrays have Postgres's own


def fragments(bound: "BoundSync") -> dict[str, sql.Composable]:
    """What queries may name of a layout."""
    return {
        "vector_column": quoted(vector_column(bound.sync)),
        "vector_column_name": sql.Literal(vector_column(bound.sync)),
        "kept_as": quoted(kept_as(bound.sync)),
        "searched": searched(bound),
        "shown_rows": shown(bound),
        "t_is_embedded": is_embedded(bound.sync),
        "t_has_its_vectors": has_its_vectors(bound),
        "d_keeps_a_vector": keeps_a_vector(bound),
    }


def kept_as(sync: Sync) -> str:
    """The target's column of what we wrote: the vector, or its digest, or how many there are."""
    if sync.chunk is not None:
        return "passages"
    return "embedding" if sync.target.column is None else "vector_hash"


def own_column(sync: Sync) -> tuple[str, ...]:
    """The column of the source that vectors are written to, if there is one."""
    return () if sync.target.column is None else (sync.target.column,)


def vector_column(sync: Sync) -> str:
    """The column of `vectors_of` that the vectors are in."""
    return sync.target.column or "embedding"


def vectors_of(sync: Sync, target: tuple[str, str], source: tuple[str, str]) -> tuple[str, str]:
    """The relation that the vectors are in, which an index is made on."""
    if sync.chunk is not None:
        schema, table = target
        return schema, f"{table.removesuffix('_embedding')}_chunk"
    return target if sync.target.column is None else source


def cutting(sync: Sync, max_tokens: int) -> bytes:
    """What tells apart how texts are cut into passages: text that is cut otherwise is to be read again."""
    if sync.chunk is None:
        return b""
    tokens = min(sync.chunk.tokens or max_tokens, max_tokens)
    return f" in passages {CUTTING_VERSION}: {tokens} {sync.chunk.overlap}".encode()


def is_embedded(sync: Sync) -> sql.Composable:
    """Whether we have written the vectors of row `t` of the target: what is counted."""
    return sql.SQL("(t.{} IS NOT NULL)").format(quoted(kept_as(sync)))


def has_its_vectors(bound: "BoundSync") -> sql.Composable:
    """Whether they are still what we wrote. NULL where there is none any more. A parent and its child may
    have rows of one key: then it is asked of each."""
    if bound.sync.target.column is None:
        return is_embedded(bound.sync)
    held = digest(bound, _own(bound))
    return sql.SQL(
        "({} AND (SELECT CASE WHEN bool_and({} IS NOT NULL) THEN bool_and(t.vector_hash = {}) END"
        " FROM {} AS s WHERE {}))"
    ).format(is_embedded(bound.sync), held, held, quoted(*bound.source_name), _s_is(bound, "t"))


def keeps_a_vector(bound: "BoundSync") -> sql.Composable:
    """Whether row `d` of the source, which has no text, has a vector all the same."""
    if bound.sync.target.column is None:
        return sql.SQL("false")
    return sql.SQL("EXISTS (SELECT FROM {} AS s WHERE {} AND {} IS NOT NULL)").format(
        quoted(*bound.source_name), _s_is(bound, "d"), _own(bound)
    )


def searched(bound: "BoundSync") -> sql.Composable:
    """Rows `t` of the target that have a vector, with `t.embedding`; its index is used."""
    if bound.sync.target.column is None:
        return sql.SQL("{} AS t").format(quoted(*bound.target_name))
    return sql.SQL(
        "(SELECT t.*, {} AS embedding FROM {} AS t JOIN {} AS s ON {} WHERE {} IS NOT NULL) AS t"
    ).format(
        _own(bound),
        quoted(*bound.target_name),
        quoted(*bound.source_name),
        _s_is(bound, "t"),
        _own(bound),
    )


def shown(bound: "BoundSync") -> sql.Composable:
    """The same of those whose source row is there."""
    if bound.sync.target.column is not None:
        return searched(bound)
    same = bound.same(bound.keys("d"), bound.keys("t"))
    return sql.SQL("{} JOIN {} AS d ON {}").format(searched(bound), quoted(*bound.source_name), same)


def digest(bound: "BoundSync", vector: sql.Composable) -> sql.Composable:
    """16 bytes that are equal for equal vectors alone."""
    kind = bound.sync.target.type
    send = quoted(bound.vector_schema, _SEND[kind]) if kind in _SEND else sql.SQL("array_send")
    return sql.SQL("substring(sha256({}({})) FROM 1 FOR 16)").format(send, vector)


def _own(bound: "BoundSync") -> sql.Composable:
    return quoted("s", vector_column(bound.sync))


def _s_is(bound: "BoundSync", alias: str) -> sql.Composable:
    return bound.same(bound.keys("s"), bound.keys(alias))
