"""Recall: what searches find in new vectors against old ones, and through an index against all of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from freshvec.db import Connection, queries, quoted, translated, verbatim
from freshvec.records import Key, Vector
from freshvec.source.bound import BoundSync
from freshvec.target import index
from freshvec.target.search import as_parameter, search

_SQL = queries("target/recall")
TOP = 10


@dataclass(frozen=True)
class Lists:
    """Of each query the keys of the nearest rows, nearest first: by looking at all vectors, and as a search
    finds them; `by_search` is None where no index serves, since then both are one."""

    exact: list[list[Key]]
    by_search: list[list[Key]] | None


@dataclass(frozen=True)
class Recall:
    """Shares of the ten nearest rows, over so many queries. `overlap`: those of the old vectors that the new
    ones find, too. `old`, `new`: those of all vectors that a search finds through the index."""

    queries: int
    overlap: float
    old: float | None
    new: float | None


def lists(connection: Connection, bound: BoundSync, vectors: Sequence[Vector], limit: int) -> Lists:
    """What each query finds. Reads all vectors once per query."""
    with translated("compare searches of", f"sync {bound.name!r}"):
        exact = [_exact(connection, bound, vector, limit) for vector in vectors]
        seen = index.look(connection, bound)
        if seen is None or not any(each.is_valid for each in seen.found):
            return Lists(exact, None)
    by_search = [[hit.key for hit in search(connection, bound, each, limit, 1)] for each in vectors]
    return Lists(exact, by_search)


def compare(old: Lists, new: Lists, *, leave_out_first: bool) -> Recall:
    """Old against new. `leave_out_first`: the queries are texts of rows, each of which finds itself."""
    pairs = [_pair(one, other, leave_out_first) for one, other in zip(old.exact, new.exact, strict=True)]
    return Recall(len(pairs), _share(pairs), _within(old), _within(new))


def _pair(old: list[Key], new: list[Key], leave_out_first: bool) -> tuple[list[Key], list[Key]]:
    if leave_out_first and old and new and old[0] == new[0]:
        return old[1 : TOP + 1], new[1 : TOP + 1]
    return old[:TOP], new[:TOP]


def _within(found: Lists) -> float | None:
    """How much of what is nearest a search finds."""
    if found.by_search is None:
        return None
    pairs = zip(found.exact, found.by_search, strict=True)
    return _share([(exact[:TOP], got[:TOP]) for exact, got in pairs])


def _share(pairs: Sequence[tuple[list[Key], list[Key]]]) -> float:
    """How much of the first of each pair is in the second, as the mean of all."""
    shares = [len(set(one) & set(other)) / len(one) for one, other in pairs if one]
    return sum(shares) / len(shares) if shares else 1.0


def _exact(connection: Connection, bound: BoundSync, vector: Vector, limit: int) -> list[Key]:
    is_plain = bound.sync.target.type == "real[]"
    name = "exact_plain" if is_plain else "exact" if bound.sync.chunk is None else "exact_passages"
    query = bound.compose(
        _SQL[name],
        schema=quoted(bound.vector_schema or "public"),
        operator=verbatim(index.search_operator(bound)),
    )
    given = {"query": as_parameter(bound.model.fit(vector), is_plain=is_plain), "limit": limit}
    with connection.transaction():
        connection.execute(_SQL["without_index"])
        return list(connection.execute(query, given).fetchall())
