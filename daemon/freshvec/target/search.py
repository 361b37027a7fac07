"""Search: the rows nearest to a text. It is how a person believes that it works."""

from dataclasses import dataclass

from freshvec.db import Connection, queries, quoted, translated
from freshvec.records import Key, Vector
from freshvec.source.bound import BoundSync

_SQL = queries("target/search")


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
    statement = bound.compose(
        _SQL["nearest_plain" if plain else "nearest"], schema=quoted(bound.vector_schema or "public")
    )
    numbers = ",".join(f"{value:.8g}" for value in query.tolist())
    params = {"query": f"{{{numbers}}}" if plain else f"[{numbers}]", "limit": limit, "width": width}
    with translated("search", f"sync {bound.name!r}"):
        connection.execute(_SQL["allow_scans"])
        found = connection.execute(statement, params).fetchall()
    return [Hit(row[:-2], float(row[-2]), row[-1] or "") for row in found]
