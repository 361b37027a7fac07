"""Transactions of a pool: their statements travel together, and nothing is left of one that fails."""

from collections.abc import Callable, Iterator

import psycopg
import pytest
from pydantic import SecretStr

from freshvec.pipeline.pool import Pool
from tests.support import Connection, count

ERRORS = (psycopg.errors.DivisionByZero, psycopg.errors.UniqueViolation, ZeroDivisionError)
INSERT = "INSERT INTO public.docs VALUES (1, 'x')"
DIVIDE = "SELECT 1 / %s"


@pytest.fixture
def pool(url: str, docs: Connection) -> Iterator[Pool]:
    pool = Pool(SecretStr(url), "test", 1)
    yield pool
    pool.close()


def asked_for(pool: Pool) -> None:
    """The error comes with a result."""
    with pool.transaction():
        pool.execute(INSERT)
        pool.execute(DIVIDE, (0,)).fetchone()


def not_asked_for(pool: Pool) -> None:
    """It comes with the end."""
    with pool.transaction():
        pool.execute(DIVIDE, (0,))
        pool.execute(INSERT)


def of_an_earlier_one(pool: Pool) -> None:
    """It comes with a later one's result."""
    with pool.transaction():
        pool.execute(INSERT)
        pool.execute(DIVIDE, (0,))
        pool.execute("SELECT 1").fetchone()


def not_of_the_database(pool: Pool) -> None:
    with pool.transaction():
        pool.execute(INSERT)
        raise ZeroDivisionError


def of_the_commit(pool: Pool) -> None:
    with pool.transaction():
        pool.execute(INSERT)
        pool.execute("CREATE TEMPORARY TABLE later (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        pool.execute("INSERT INTO pg_temp.later VALUES (1), (1)")


@pytest.mark.parametrize(
    "fails", [asked_for, not_asked_for, of_an_earlier_one, not_of_the_database, of_the_commit]
)
def test_of_a_transaction_that_fails_nothing_stays(
    pool: Pool, docs: Connection, fails: Callable[[Pool], None]
) -> None:
    for _ in range(7):  # statements that come again are prepared
        with pytest.raises(ERRORS):
            fails(pool)
        assert count(docs, "docs") == 0
        with pool.transaction():
            pool.execute("SELECT pg_current_xact_id()")
        assert pool.execute("SELECT now() < clock_timestamp()").fetchone() == (True,)
    with pool.transaction():
        pool.execute(INSERT)
    assert count(docs, "docs") == 1


def test_what_nobody_waits_for_is_not_waited_for(pool: Pool, docs: Connection) -> None:
    docs.execute("BEGIN")
    docs.execute("LOCK TABLE docs")
    with pool.transaction():
        inserted = pool.execute(INSERT + " RETURNING id")
        docs.execute("COMMIT")  # had the insert been waited for, nobody would let it go on
        assert inserted.fetchone() == (1,)


def test_a_statement_is_not_planned_for_each_execution(pool: Pool, docs: Connection) -> None:
    found = "SELECT body FROM public.docs WHERE id = ANY (%(ids)s)"
    for number in range(20):
        pool.execute(found, {"ids": list(range(number))}).fetchall()
    plans = "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement LIKE '%ANY%'"
    planned = pool.execute(plans, prepare=False).fetchone()
    assert planned is not None
    assert planned[0] > 10
    assert planned[1] == 0
