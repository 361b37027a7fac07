"""Search: the rows nearest to a text. It is how a person believes that it works."""

from dataclasses import dataclass

from psycopg import sql

from freshvec.db import Connection, queries, quoted, translated, verbatim
from freshvec.records import Key, Vector
from freshvec.source.bound import BoundSync
from freshvec.target import index

_SQL = queries("target/search")


_TIMES, _MOST_CANDIDATES = 20, 1000  # rows looked up by their bits for each that is wanted; pgvector's bound


@dataclass(frozen=True)
class Hit:
    key: Key
    similarity: float  # cosine, -1 to 1
    text: str


def search(
    connection: Connection, bound: BoundSync, query: Vector, limit: int, width: int = 200
) -> list[Hit]:
    """The `limit` rows nearest to `query` `[dimension]`, nearest first, with the first `width` characters of
    text."""
    plain = bound.sync.target.type == "real[]"
    candidates = min(_MOST_CANDIDATES, max(40, _TIMES * limit))
    params = {"query": as_parameter(query, is_plain=plain), "limit": limit, "width": width}
    with translated("search", f"sync {bound.name!r}"):
        connection.execute(_SQL["allow_scans"])
        if not plain:
            connection.execute(_SQL["look_further"], {"candidates": candidates})
        found = connection.execute(_statement(bound), params | {"candidates": candidates}).fetchall()
    return [Hit(row[:-2], float(row[-2]), row[-1] or "") for row in found]


def as_parameter(vector: Vector, *, is_plain: bool) -> str:
    """A vector as Postgres reads it: of pgvector's types, or plain numbers."""
    numbers = ",".join(f"{value:.8g}" for value in vector.tolist())
    return f"{{{numbers}}}" if is_plain else f"[{numbers}]"


def _statement(bound: BoundSync) -> sql.Composed:
    """The search that the target's type allows, and that the declared index serves."""
    declared, schema = bound.sync.index, bound.vector_schema or "public"
    if bound.sync.target.type == "real[]":
        return bound.compose(_SQL["nearest_plain"])
    return bound.compose(
        _SQL["nearest_binary" if declared is not None and declared.binary else "nearest"],
        schema=quoted(schema),
        operator=verbatim(index.search_operator(bound)),
        quantize=quoted(schema, "binary_quantize"),
    )
