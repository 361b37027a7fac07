"""Vectors packed for COPY BINARY are what Postgres and pgvector read."""

import struct

import numpy as np
import psycopg
import pytest

from freshvec.records import Vector
from freshvec.target.binary import pack

HEADER, TRAILER = b"PGCOPY\n\xff\r\n\x00" + bytes(8), b"\xff\xff"


def stored(url: str, column: str, fields: list[bytes]) -> tuple[list[str], list[list[float]]]:
    """The column's values after COPY BINARY: as text, and as numbers."""
    with psycopg.connect(url) as connection:
        connection.execute(f"CREATE TEMPORARY TABLE t (n int, v {column})")
        with connection.cursor().copy("COPY t FROM STDIN (FORMAT BINARY)") as copy:
            rows = b"".join(struct.pack("!hii", 2, 4, n) + field for n, field in enumerate(fields))
            copy.write(HEADER + rows + TRAILER)
        found = connection.execute("SELECT v::text, v::real[] FROM t ORDER BY n").fetchall()
    return [row[0] for row in found], [row[1] for row in found]


def vectors(count: int, dimension: int) -> list[Vector]:
    raw = np.random.default_rng(7).normal(size=(count, dimension)).astype(np.float32)
    return list(raw / np.linalg.norm(raw, axis=1, keepdims=True))


@pytest.mark.parametrize(("element", "column"), [("vector", "vector(384)"), ("real[]", "real[]")])
def test_single_precision_comes_back_bit_for_bit(url: str, element: str, column: str) -> None:
    given = vectors(50, 384)
    _, numbers = stored(url, column, pack(given, element))
    assert np.array(numbers, dtype=np.float32).tobytes() == np.stack(given).tobytes()


def test_half_precision_is_rounded_as_pgvector_rounds(url: str) -> None:
    given = vectors(50, 384)
    edge = np.zeros(384, dtype=np.float32)
    edge[:7] = [65504, -65504, 6e-8, 2e-8, 1 / 3, 2049, 2051]
    texts, _ = stored(url, "halfvec(384)", pack([*given, edge], "halfvec"))
    with psycopg.connect(url) as connection:
        literal = [str(vector.astype(float).tolist()) for vector in (*given, edge)]
        wanted = connection.execute(
            "SELECT v::vector::halfvec::text FROM unnest(%s::text[]) AS v", (literal,)
        ).fetchall()
    assert texts == [row[0] for row in wanted]


@pytest.mark.parametrize(
    ("element", "column"), [("vector", "vector"), ("halfvec", "halfvec"), ("real[]", "real[]")]
)
@pytest.mark.parametrize("dimension", [1, 2, 1000])
def test_other_dimensions(url: str, element: str, column: str, dimension: int) -> None:
    given: list[Vector] = [(np.arange(dimension) / 8 - n).astype(np.float32) for n in range(3)]
    _, numbers = stored(url, column, pack(given, element))
    assert np.array(numbers).tolist() == np.stack(given).tolist()


def test_an_array_begins_at_one_and_holds_no_null(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TEMPORARY TABLE t (v real[])")
        with connection.cursor().copy("COPY t FROM STDIN (FORMAT BINARY)") as copy:
            copy.write(
                HEADER + struct.pack("!h", 1) + pack([np.ones(3, dtype=np.float32)], "real[]")[0] + TRAILER
            )
        found = connection.execute("SELECT array_dims(v), array_position(v, NULL) FROM t").fetchone()
    assert found == ("[1:3]", None)


def test_rows_of_a_batchs_matrix_and_nothing_at_all() -> None:
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert pack(list(matrix), "vector") == [pack([row.copy()], "vector")[0] for row in matrix]
    assert pack([], "vector") == []
