"""Sessions of a pool plan their statements once for any values, and anew after some seconds."""

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from freshvec.pipeline.pool import Pool
from tests.support import Connection

FOUND = "SELECT body FROM public.docs WHERE id = ANY (%(ids)s)"
PLANS = "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement LIKE '%ANY%'"


@pytest.fixture
def pool(url: str, docs: Connection) -> Iterator[Pool]:
    pool = Pool(SecretStr(url), "test", 1)
    yield pool
    pool.close()


def test_a_statement_is_not_planned_for_each_execution(pool: Pool) -> None:
    for number in range(20):
        pool.execute(FOUND, {"ids": list(range(number))}).fetchall()
    planned = pool.execute(PLANS, prepare=False).fetchone()
    assert planned is not None
    assert planned[0] > 10
    assert planned[1] == 0


@pytest.mark.parametrize(("seconds", "is_forgotten"), [(0.0, True), (600.0, False)])
def test_plans_are_forgotten_once_they_are_old(
    url: str, docs: Connection, seconds: float, is_forgotten: bool
) -> None:
    pool = Pool(SecretStr(url), "test", 1, seconds)
    pool.execute(FOUND, {"ids": [1]}).fetchall()
    last = docs.execute("SELECT query FROM pg_stat_activity WHERE application_name = 'freshvec test'")
    assert last.fetchone() == ("DISCARD PLANS" if is_forgotten else FOUND.replace("%(ids)s", "$1"),)
    pool.close()
