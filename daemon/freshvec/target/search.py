"""Search: the rows nearest to a text. It is how a person believes that it works."""

from dataclasses import dataclass

from psycopg import sql

from freshvec.db import Connection, queries, quoted, translated, verbatim
from freshvec.records import Key, Vector
from freshvec.source.bound import BoundSync
from freshvec.target import index

_SQL = queries("target/search")


_MOST_PASSAGES = 20_000
_TIMES, _MOST_CANDIDATES = 20, 1000  # rows looked up by their bits for each that is wanted; pgvector's bound


@dataclass(frozen=True)
class Hit:
    key: Key
    similarity: float  # cosine, -1 to 1
    text: str


def search(
    connection: Connection, bound: BoundSync, query: Vector, limit: int, width: int = 200
) -> list[Hit]:
    """The `limit` rows nearest to `query`, the model's vector of a text, nearest first, with the first
    `width` characters of their text."""
    plain = bound.sync.target.type == "real[]"
    candidates = min(_MOST_CANDIDATES, max(40, _TIMES * limit))
    params = {"query": as_parameter(bound.model.fit(query), is_plain=plain), "limit": limit, "width": width}
    with translated("search", f"sync {bound.name!r}"):
        connection.execute(_SQL["allow_scans"])
        if not plain:
            connection.execute(_SQL["look_further"], {"candidates": candidates})
        if bound.sync.chunk is not None:
            return _rows_by_passages(connection, bound, params, candidates)
        found = connection.execute(_statement(bound), params | {"candidates": candidates}).fetchall()
    return [Hit(row[:-2], float(row[-2]), row[-1] or "") for row in found]


def _rows_by_passages(
    connection: Connection, bound: BoundSync, params: dict[str, object], candidates: int
) -> list[Hit]:
    """The rows with the best passages, each with its best: ever more passages are looked at until there are
    enough rows."""
    statement = _statement(bound)
    while True:
        found = connection.execute(statement, params | {"candidates": candidates}).fetchall()
        enough = len(found) == params["limit"] or not found or found[0][-1] < candidates
        if enough or candidates >= _MOST_PASSAGES:
            return [Hit(row[:-3], float(row[-3]), row[-2] or "") for row in found]
        candidates *= 2


def as_parameter(vector: Vector, *, is_plain: bool) -> str:
    """A vector as Postgres reads it: of pgvector's types, or plain numbers."""
    numbers = ",".join(f"{value:.8g}" for value in vector.tolist())
    return f"{{{numbers}}}" if is_plain else f"[{numbers}]"


def _statement(bound: BoundSync) -> sql.Composed:
    """The search that the target's type allows, and that the declared index serves."""
    declared, schema = bound.sync.index, bound.vector_schema or "public"
    if bound.sync.target.type == "real[]":
        return bound.compose(_SQL["nearest_plain"])
    names = {
        "schema": quoted(schema),
        "operator": verbatim(index.search_operator(bound)),
        "quantize": quoted(schema, "binary_quantize"),
    }
    is_binary = declared is not None and declared.binary
    if bound.sync.chunk is not None:
        order = bound.compose(_SQL["by_bits" if is_binary else "by_vectors"], **names)
        return bound.compose(_SQL["nearest_passages"], by_index=order, **names)
    return bound.compose(_SQL["nearest_binary" if is_binary else "nearest"], **names)
