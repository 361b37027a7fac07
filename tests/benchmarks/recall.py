"""What searches find: recall@10 of each way to keep and index vectors, beside an exact search of fp32."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from freshvec.models.artefact import Precision
from freshvec.records import Vector, shortened
from tests.benchmarks.harness import Report, database, real_encoder, texts
from tests.support import Connection

_WANTED = 10
_QUERIES = 200
_CANDIDATES = 200  # rows that `freshvec search` looks up by their bits for ten (target/search.py)
_AT_ONCE = 64
_CUT = 192  # half of the numbers of a model that was not trained to be cut
Found = list[list[int]]


def recall(report: Report, quick: bool) -> None:
    """Docstrings, and as queries the first lines of others. Each share is of the ten that are nearest."""
    rows, asked = _texts(500 if quick else 5000)
    documents, queries = _encoded("fp32", rows, asked)
    exact = _nearest(documents, queries)
    eighths = _nearest(*_encoded("int8", rows, asked))
    cut = _nearest(*(np.stack([shortened(one, _CUT) for one in them]) for them in (documents, queries)))
    report.add("rows", len(rows), "")
    report.at_least("int8 vectors, exact search", _share(eighths, exact), 0.9)
    report.add(f"first {_CUT} of 384 numbers, which its card does not allow", _share(cut, exact), "")
    with database() as (_, connection):
        for kind in ("vector", "halfvec"):
            _fill(connection, kind, documents)
            found = _searched(connection, kind, queries, {})
            report.at_least(f"{kind}, exact search", _share(found, exact), 0.99)
        for name, kind, ddl, settings, least in _indexes(len(rows)):
            connection.execute(ddl)
            binary = "binary" in name
            found = _searched(connection, kind, queries, {"enable_seqscan": "off", **settings}, binary=binary)
            report.at_least(name, _share(found, exact), least)
            connection.execute("DROP INDEX searched")


def _indexes(rows: int) -> Iterator[tuple[str, str, str, dict[str, str], float]]:
    """Name, type of the vectors, DDL, settings of the session, and the least that each should find. IVFFlat
    looks into as many lists as `freshvec search` does."""
    build = "CREATE INDEX searched ON rows_{} USING {}"
    hnsw = {"hnsw.ef_search": "40"}  # pgvector's default
    more = {"hnsw.ef_search": str(_CANDIDATES)}
    for kind in ("vector", "halfvec"):
        ops = f"hnsw (embedding {kind}_cosine_ops)"
        yield f"HNSW on {kind}, ef_search 40", kind, build.format(kind, ops), hnsw, 0.9
    ops = "hnsw (embedding vector_cosine_ops)"
    yield f"HNSW on vector, ef_search {_CANDIDATES}", "vector", build.format("vector", ops), more, 0.97
    ops = "hnsw ((binary_quantize(embedding)::bit(384)) bit_hamming_ops)"
    yield "HNSW, binary, 200 rows ordered by their vectors", "vector", build.format("vector", ops), more, 0.9
    lists = math.isqrt(rows)
    ops = f"ivfflat (embedding vector_cosine_ops) WITH (lists = {lists})"
    for probes, least in ((1, 0.0), (10, 0.9)):
        name = f"IVFFlat, {lists} lists, {probes} looked into"
        yield name, "vector", build.format("vector", ops), {"ivfflat.probes": str(probes)}, least


def _texts(count: int) -> tuple[list[str], list[str]]:
    """Texts to find, and texts to look for."""
    found = list(dict.fromkeys(texts(count + _QUERIES)))
    step = len(found) // _QUERIES
    asked = found[::step][:_QUERIES]
    others = set(asked)
    return [text for text in found if text not in others], [text.strip().split("\n")[0] for text in asked]


def _encoded(precision: Precision, rows: list[str], asked: list[str]) -> tuple[Vector, Vector]:
    """Documents and queries by one graph, in batches of texts of like length."""
    encoder = real_encoder(precision)
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    documents = np.empty((len(rows), encoder.dimension), np.float32)
    for low in range(0, len(order), _AT_ONCE):
        places = order[low : low + _AT_ONCE]
        documents[places] = encoder.encode(encoder.tokenize([rows[place] for place in places]))
    return documents, np.stack([encoder.encode_query(text) for text in asked])


def _nearest(documents: Vector, queries: Vector) -> Found:
    """Places of the nearest documents, by their cosines."""
    order: NDArray[np.intp] = np.argsort(-(queries @ documents.T), axis=1)[:, :_WANTED]
    return [places.tolist() for places in order]


def _share(found: Found, exact: Found) -> float:
    both = zip(found, exact, strict=True)
    return sum(len(set(some) & set(wanted)) for some, wanted in both) / (len(exact) * _WANTED)


def _fill(connection: Connection, kind: str, documents: Vector) -> None:
    table = sql.Identifier(f"rows_{kind}")
    made = sql.SQL("CREATE TABLE {} (id int PRIMARY KEY, embedding {}(384))")
    connection.execute(made.format(table, sql.Identifier(kind)))
    with connection.cursor().copy(sql.SQL("COPY {} FROM STDIN").format(table)) as copy:
        for place, vector in enumerate(documents):
            copy.write_row((place, _literal(vector)))
    connection.execute(sql.SQL("ANALYZE {}").format(table))


def _searched(
    connection: Connection, kind: str, queries: Vector, settings: dict[str, str], *, binary: bool = False
) -> Found:
    """What queries find as applications write them."""
    near = f"SELECT id FROM {{table}} ORDER BY embedding <=> %(query)s::{kind}(384) LIMIT {_WANTED}"
    if binary:
        near = (
            "WITH near AS MATERIALIZED (SELECT id, embedding FROM {table} ORDER BY "
            f"binary_quantize(embedding)::bit(384) <~> binary_quantize(%(query)s::{kind}(384))::bit(384) "
            f"LIMIT {_CANDIDATES}) "
            f"SELECT id FROM near ORDER BY embedding <=> %(query)s::{kind}(384) LIMIT {_WANTED}"
        )
    query = sql.SQL(near).format(table=sql.Identifier(f"rows_{kind}"))
    with connection.transaction():
        for name, value in settings.items():
            connection.execute("SELECT set_config(%s, %s, true)", (name, value))
        if settings:
            plan = connection.execute(sql.SQL("EXPLAIN ") + query, {"query": _literal(queries[0])})
            assert any("searched" in line for (line,) in plan), "the index serves it"
        return [
            [row for (row,) in connection.execute(query, {"query": _literal(vector)})] for vector in queries
        ]


def _literal(vector: Vector) -> str:
    return "[" + ",".join(f"{value:.8g}" for value in vector.tolist()) + "]"
