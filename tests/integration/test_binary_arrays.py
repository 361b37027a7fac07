"""Numbers and vectors sent as one binary array are what Postgres and pgvector read."""

import numpy as np
import pytest

from freshvec.db import connect
from freshvec.target.binary import NumberArray, VectorArray
from tests.support import settings_for

KINDS = {"real": np.float32, "int": np.int32, "bigint": np.int64}


@pytest.fixture(params=["url", "url16"])
def server_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.mark.parametrize("count", [0, 1, 384, 5000])
@pytest.mark.parametrize(("kind", "dtype"), KINDS.items(), ids=KINDS.keys())
def test_numbers_come_back_bit_for_bit(
    server_url: str, kind: str, dtype: type[np.generic], count: int
) -> None:
    given = np.asarray(np.random.default_rng(7).normal(size=count) * 1000, dtype=dtype)
    with connect(settings_for(server_url).database.url, "test") as connection:
        row = connection.execute(f"SELECT %s::{kind}[]", (NumberArray(given),)).fetchone()
    assert row is not None
    assert np.array(row[0], dtype=dtype).tobytes() == given.tobytes()


@pytest.mark.parametrize("count", [0, 1, 300])
def test_vectors_come_back_bit_for_bit(server_url: str, count: int) -> None:
    given = np.random.default_rng(7).normal(size=(count, 384)).astype(np.float32)
    with connect(settings_for(server_url).database.url, "test") as connection:
        query = (
            "SELECT v::real[] FROM unnest(%s::public.vector[]) WITH ORDINALITY AS u (v, place) ORDER BY place"
        )
        rows = connection.execute(query, (VectorArray(given),)).fetchall()
    assert np.array([row[0] for row in rows], dtype=np.float32).tobytes() == given.tobytes()


def test_halves_round_as_pgvector_rounds(server_url: str) -> None:
    given = np.array([[1.5, -2.25, 0.1], [65504.0, 2.0**-24, 7.0]], dtype=np.float32)
    with connect(settings_for(server_url).database.url, "test") as connection:
        query = "SELECT v::text FROM unnest(%s::public.halfvec[]) AS v"
        sent = [text for (text,) in connection.execute(query, (VectorArray(given, half=True),))]
        literal = [str(vector.astype(float).tolist()) for vector in given]
        query = "SELECT v::public.vector::public.halfvec::text FROM unnest(%s::text[]) AS v"
        wanted = [text for (text,) in connection.execute(query, (literal,))]
    assert sent == wanted
