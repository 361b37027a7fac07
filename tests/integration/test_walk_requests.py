"""Requests for a walk: who relies on one is answered after their transaction, and nobody walks for ever."""

import re
import time

import psycopg
import pytest

from freshvec.capture.queue import QUEUE_FULL, REDEFINED
from freshvec.db import connect, queries
from freshvec.pipeline.walk_requests import Requests
from tests.integration.stepwise import Bench
from tests.staleness import stale
from tests.support import Connection, NullEncoder, bound_sync, count, running, until, wait_fresh


@pytest.fixture
def bench(docs: Connection) -> Bench:
    return Bench(docs)


def test_a_request_that_is_relied_on_is_answered_after_that_transaction(bench: Bench) -> None:
    """A change that could not be noted relies on a request; a walk passes the row before the commit."""
    encoder = NullEncoder()
    ask = f"SELECT freshvec.ask_for_walk('docs', '{QUEUE_FULL}')"
    bench.docs.execute(ask)
    with bench.session() as slow:
        bench.edit_unnoted("unnoted", slow)
        slow.execute(ask)
        walked = bench.docs.execute("SELECT proven_at FROM freshvec.sync").fetchone()
        with running(bench.settings, encoder) as worker:
            query = "SELECT proven_at IS DISTINCT FROM %s FROM freshvec.sync"
            until("a walk is over", lambda: bench.docs.execute(query, walked).fetchone() == (True,))
            slow.commit()
            worker.sweep()
            until("nothing is stale", lambda: stale(bench.docs, encoder) == [], 20)
            until("the request is gone", lambda: count(bench.docs, "freshvec.rescan") == 0)


def test_a_request_that_an_open_transaction_relies_on_is_not_walked_for_over_and_over(bench: Bench) -> None:
    encoder = NullEncoder()
    ask = f"SELECT freshvec.ask_for_walk('docs', '{QUEUE_FULL}')"
    bench.docs.execute(ask)
    with bench.session() as slow:
        slow.execute(ask)
        with running(bench.settings, encoder):
            walks = set()
            watched_until = time.monotonic() + 2.5
            while time.monotonic() < watched_until:
                walks.add(bench.docs.execute("SELECT walk_started_at FROM freshvec.sync").fetchone())
            assert 2 <= len(walks) <= 5, "the one before, the first, and one each second"
            slow.commit()
            until("the request is gone", lambda: count(bench.docs, "freshvec.rescan") == 0)


def test_a_request_waits_for_those_who_wrote_when_it_came(bench: Bench) -> None:
    """Not only for those of the request before, which waits as well."""
    asked = [("1", REDEFINED), ("2", REDEFINED)]
    with connect(bench.settings.database.url, "test") as connection, bench.session() as second:
        requests = Requests(connection, bound_sync(connection, bench.settings, NullEncoder()))
        with bench.session() as first:
            bench.edit_unnoted("by other rules", first)
            assert requests.due(asked[:1]) == []
            second.execute("UPDATE docs SET body = body WHERE id = 2")
            assert requests.due(asked) == []
            first.commit()
        still = time.monotonic() + 1.5  # looks are a second apart once it has waited for long
        while time.monotonic() < still:
            assert requests.due(asked) == []
        second.commit()
        until("both are due", lambda: requests.due(asked) == asked)


def test_a_request_answered_since_a_transactions_snapshot_is_made_again(bench: Bench) -> None:
    encoder = NullEncoder()
    ask = f"SELECT freshvec.ask_for_walk('docs', '{QUEUE_FULL}')"
    bench.docs.execute(ask)
    with bench.session() as slow:
        slow.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        assert count(slow, "freshvec.rescan") == 1
        with running(bench.settings, encoder) as worker:
            until("it is answered", lambda: count(bench.docs, "freshvec.rescan") == 0)
            wait_fresh(worker)
            bench.edit_unnoted("unnoted", slow)
            slow.execute(ask)
            slow.commit()
            until("nothing is stale", lambda: stale(bench.docs, encoder) == [], 20)


def test_retry_takes_its_transactions_id_before_it_draws_a_number(bench: Bench) -> None:
    """Whoever draws a number has an id, so that the floor waits for it: the plan tells, the gap is short."""
    with connect(bench.settings.database.url, "test") as connection:
        bound = bound_sync(connection, bench.settings, NullEncoder())
        plan = connection.execute(bound.compose("EXPLAIN " + queries("scans/retry")["retry"])).fetchall()
    assert any(re.search(r"One-Time Filter: .*pg_current_xact_id\(\)", line) for (line,) in plan)
