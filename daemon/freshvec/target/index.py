"""The index on a target's vectors: what is declared, what is there, and the next step from one to the other.

An index of ours is known by its name: `freshvec_`, the sync, and a hash of what it is. So one that is
declared otherwise has another name, and one that somebody renames is theirs.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Literal

from psycopg import sql

from freshvec.db import INDEX_LOCK_CLASS, Connection, queries, quoted, quoted_name
from freshvec.errors import SchemaError
from freshvec.source import layout
from freshvec.source.bound import BoundSync
from freshvec.storage import Index

_SQL = queries("target/index")
_MOST = {"vector": 2000, "halfvec": 4000}  # dimensions that pgvector can index
_MOST_BITS = 64_000
_FEW_LISTS = 1_000_000  # vectors; above, their number's square root is enough


@dataclass(frozen=True)
class Found:
    """An index on the target. `is_plain`: of one column or expression, over all rows."""

    name: str
    method: str
    operators: str
    is_valid: bool
    is_ours: bool
    is_plain: bool


@dataclass(frozen=True)
class Seen:
    """The indexes of a target, and what decides about them.

    `is_filled`: every row has its vector. `is_renewed`: most vectors are still to be made anew. `builder` is
    the session of another that is at it, and `building` the index that it builds. `trouble`: as it was noted.
    """

    found: tuple[Found, ...]
    is_filled: bool
    is_renewed: bool
    vectors: int
    may_build: bool
    builder: int | None = None
    building: str | None = None
    trouble: str | None = None


@dataclass(frozen=True)
class Step:
    """One thing to do about an index."""

    verb: Literal["build", "drop"]
    name: str
    reason: str


def check(bound: BoundSync) -> None:
    """Raises SchemaError where pgvector cannot index vectors of that many dimensions, or Postgres cannot
    build the index beside readers and writers."""
    if bound.sync.index is not None and bound.sync.target.column is not None and len(bound.relations) > 1:
        raise SchemaError(
            f"index the vectors of sync {bound.name!r} in",
            ".".join(bound.vectors_name),
            "it has partitions or children, over which Postgres builds no index concurrently",
            "Write no index, and make one on each of them yourself; or leave column out.",
        )
    declared, kind, dimension = bound.sync.index, bound.sync.target.type, bound.model.dimension
    if declared is None or dimension <= (most := _MOST_BITS if declared.binary else _MOST[kind]):
        return
    remedies = ['target = { type = "halfvec" }'] if kind == "vector" and dimension <= _MOST["halfvec"] else []
    remedies += [] if declared.binary or dimension > _MOST_BITS else ["binary = true in index"]
    raise SchemaError(
        f"index the vectors of sync {bound.name!r} in",
        ".".join(bound.vectors_name),
        f"model {bound.model.name} gives {dimension:,} dimensions, and pgvector indexes at most {most:,} of "
        f"type {'bit' if declared.binary else kind}",
        f"Write {' or '.join([*remedies, 'no index'])}.",
    )


def look(connection: Connection, bound: BoundSync) -> Seen | None:
    """The indexes of the sync's target as they are; None where the sync or its target is not there."""
    given = {
        "name": bound.name,
        "vectors": quoted_name(*bound.vectors_name),
        "vector_column": layout.vector_column(bound.sync),
        "class": INDEX_LOCK_CLASS,
    }
    row = connection.execute(_SQL["look"], given).fetchone()
    if row is None:
        return None
    *known, found = row
    return Seen(tuple(Found(**each) for each in found or ()), *known)


def next_step(bound: BoundSync, seen: Seen) -> Step | None:
    """What is to be done next, if anything. No index that serves is dropped before another does."""
    declared, wanted = bound.sync.index, name_of(bound)
    ours = [each for each in seen.found if each.is_ours]
    for each in ours:
        if not each.is_valid:
            return Step("drop", each.name, "it was not finished")
    if declared is not None and declared.rebuild and seen.is_renewed and ours:
        return Step("drop", ours[0].name, "most rows are encoded again, and it is built at the end")
    if declared is not None and all(each.name != wanted for each in ours) and theirs(bound, seen) is None:
        is_time = seen.is_filled and seen.vectors > 0
        return Step("build", wanted or "", "every row has its vector") if is_time else None
    spare = [each for each in ours if each.name != wanted]
    return Step("drop", spare[0].name, "it is declared no more") if spare else None


def serves(bound: BoundSync, seen: Seen) -> bool:
    """Whether searches have the index that is declared, or there is none to have. One that is built serves
    while its builder is still about: it is done with its statement a moment later."""
    if bound.sync.index is None or seen.vectors == 0:
        return True
    has_ours = any(each.is_valid and each.is_ours and each.name == name_of(bound) for each in seen.found)
    return has_ours or theirs(bound, seen) is not None


def theirs(bound: BoundSync, seen: Seen) -> str | None:
    """An index of the declared kind that somebody else made: it serves as well, and is left alone."""
    declared = bound.sync.index
    if declared is None:
        return None
    kind = (declared.type, _operators(bound, declared))
    same = [each for each in seen.found if (each.method, each.operators) == kind and each.is_plain]
    return next((each.name for each in same if each.is_valid and not each.is_ours), None)


def name_of(bound: BoundSync) -> str | None:
    """The name of the declared index; None where none is."""
    declared = bound.sync.index
    if declared is None:
        return None
    what = (_operators(bound, declared), bound.model.dimension, sorted(_options(declared, None).items()))
    return f"freshvec_{bound.name}_{hashlib.sha256(f'{declared.type} {what}'.encode()).hexdigest()[:8]}"


def building(bound: BoundSync, vectors: int) -> sql.Composed:
    """The statement that builds the declared index on so many vectors."""
    declared = bound.sync.index
    assert declared is not None
    schema = bound.vector_schema or "public"
    key = bound.compose(
        _SQL["binary" if declared.binary else "plain"],
        operators=quoted(schema, _operators(bound, declared)),
        quantize=quoted(schema, "binary_quantize"),
    )
    options = [f"{name} = {value}" for name, value in _options(declared, vectors).items()]
    return bound.compose(
        _SQL["build"],
        index=quoted(name_of(bound)),
        method=quoted(declared.type),
        key=key,
        options=sql.SQL(", ").join(sql.SQL(option) for option in options),
    )


def dropping(schema: str, name: str) -> sql.Composed:
    """The statement that drops an index."""
    return sql.SQL(_SQL["drop"]).format(index=quoted(schema, name))


def search_operator(bound: BoundSync) -> str:
    """The operator by which a search orders, so that the declared index serves it."""
    declared = bound.sync.index
    return {"cosine": "<=>", "ip": "<#>", "l2": "<->"}[declared.distance if declared else "cosine"]


def _operators(bound: BoundSync, declared: Index) -> str:
    """The operator class."""
    return "bit_hamming_ops" if declared.binary else f"{bound.sync.target.type}_{declared.distance}_ops"


def _options(declared: Index, vectors: int | None) -> dict[str, int]:
    """Its parameters; `lists` by the number of vectors where none are declared, 0 while that is not known."""
    if declared.type == "hnsw":
        return {"m": declared.links, "ef_construction": declared.candidates}
    if declared.lists or vectors is None:
        return {"lists": declared.lists or 0}
    return {"lists": max(1, vectors // 1000 if vectors <= _FEW_LISTS else math.isqrt(vectors))}
