"""Texts, numbers and vectors sent as one binary array are what Postgres and pgvector read."""

from collections.abc import Iterator

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freshvec.arrays import NumberArray, TextArray, VectorArray
from freshvec.db import connect
from tests.support import Connection, settings_for

KINDS = {"real": np.float32, "int": np.int32, "bigint": np.int64}


@pytest.fixture(params=["url", "url16"])
def server_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def session(server_url: str) -> Iterator[Connection]:
    with connect(settings_for(server_url).database.url, "test") as connection:
        yield connection


@pytest.mark.parametrize("count", [0, 1, 384, 5000])
@pytest.mark.parametrize(("kind", "dtype"), KINDS.items(), ids=KINDS.keys())
def test_numbers_come_back_bit_for_bit(
    server_url: str, kind: str, dtype: type[np.generic], count: int
) -> None:
    numbers = np.asarray(np.random.default_rng(7).normal(size=count) * 1000, dtype=dtype)
    with connect(settings_for(server_url).database.url, "test") as connection:
        row = connection.execute(f"SELECT %s::{kind}[]", (NumberArray(numbers),)).fetchone()
    assert row is not None
    assert np.array(row[0], dtype=dtype).tobytes() == numbers.tobytes()


@pytest.mark.parametrize("count", [0, 1, 300])
def test_vectors_come_back_bit_for_bit(server_url: str, count: int) -> None:
    numbers = np.random.default_rng(7).normal(size=(count, 384)).astype(np.float32)
    with connect(settings_for(server_url).database.url, "test") as connection:
        query = (
            "SELECT v::real[] FROM unnest(%s::public.vector[]) WITH ORDINALITY AS u (v, place) ORDER BY place"
        )
        rows = connection.execute(query, (VectorArray(list(numbers)),)).fetchall()
    assert np.array([row[0] for row in rows], dtype=np.float32).tobytes() == numbers.tobytes()


def test_halves_round_as_pgvector_rounds(server_url: str) -> None:
    numbers = np.array([[1.5, -2.25, 0.1], [65504.0, 2.0**-24, 7.0]], dtype=np.float32)
    with connect(settings_for(server_url).database.url, "test") as connection:
        query = "SELECT v::text FROM unnest(%s::public.halfvec[]) AS v"
        sent = [text for (text,) in connection.execute(query, (VectorArray(list(numbers), half=True),))]
        literal = [str(vector.astype(float).tolist()) for vector in numbers]
        query = "SELECT v::public.vector::public.halfvec::text FROM unnest(%s::text[]) AS v"
        wanted = [text for (text,) in connection.execute(query, (literal,))]
    assert sent == wanted


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"))))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_texts_come_back_as_they_were(session: Connection, texts: list[str]) -> None:
    assert session.execute("SELECT %s::text[]", (TextArray(texts),)).fetchone() == (texts,)


def test_a_text_with_a_nul_is_refused_as_the_driver_refuses_it(session: Connection) -> None:
    with pytest.raises(psycopg.DataError, match="NUL"):
        session.execute("SELECT %s::text[]", (TextArray(["a", "b\0c"]),))
