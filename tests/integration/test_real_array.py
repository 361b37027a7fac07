"""Vectors sent as one binary real[] are what Postgres and pgvector read, in every type of target."""

import numpy as np
import pytest

from freshvec.db import connect
from freshvec.target.binary import RealArray, register
from tests.support import settings_for


@pytest.mark.parametrize("count", [0, 1, 384, 5000])
def test_numbers_come_back_bit_for_bit(url: str, count: int) -> None:
    given = np.random.default_rng(7).normal(size=count).astype(np.float32)
    with connect(settings_for(url).database.url, "test") as connection:
        register(connection)
        row = connection.execute("SELECT %s::real[]", (RealArray(given),)).fetchone()
    assert row is not None
    assert np.array(row[0], dtype=np.float32).tobytes() == given.tobytes()


@pytest.mark.parametrize("kind", ["vector", "halfvec"])
def test_a_slice_is_a_vector(url: str, kind: str) -> None:
    """As the upsert takes one row's numbers out of all of them; halves round as Postgres rounds."""
    given = np.array([1.5, -2.25, 0.1, 65504.0, 2.0**-24, 7.0], dtype=np.float32)
    with connect(settings_for(url).database.url, "test") as connection:
        register(connection)
        sliced = f"((%s::real[])[4:6])::public.{kind}(3)::text"
        query = f"SELECT {sliced}, ('[65504,5.9604645e-08,7]'::public.{kind}(3))::text"
        row = connection.execute(query, (RealArray(given),)).fetchone()
    assert row is not None
    assert row[0] == row[1]
