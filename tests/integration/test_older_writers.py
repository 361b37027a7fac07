"""Transactions that wrote to a table before its sync was defined as it is: what they changed was noted by
other rules, and is found once they are over."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from freshvec.db import connect
from freshvec.embedded import EmbeddedPostgres
from freshvec.health import status
from freshvec.health.wait import wait_until_fresh
from tests.integration.at_rest import Kept
from tests.integration.locking import ON_18, apply_to
from tests.support import Connection, count, running, sync_of, until, wait_fresh

UNNOTED = "UPDATE docs SET views = 99 WHERE id = 1"
DEFINITIONS: dict[str, tuple[dict[str, Any], str]] = {
    "columns": ({"columns": ["body", "views"]}, "concat_ws(E'\\n', body, views)"),
    "expression": ({"expression": "body || coalesce(views, 0)"}, "body || coalesce(views, 0)"),
    "where": ({"where": "views < 50"}, "CASE WHEN views < 50 THEN body END"),
}
WIDER = DEFINITIONS["columns"]
PARTITIONED = """
ALTER TABLE docs RENAME TO one; ALTER TABLE one RENAME CONSTRAINT docs_pkey TO one_pkey;
CREATE TABLE docs (LIKE one INCLUDING ALL) PARTITION BY RANGE (id);
ALTER TABLE docs ATTACH PARTITION one FOR VALUES FROM (1) TO (1000);
CREATE TABLE more PARTITION OF docs FOR VALUES FROM (1000) TO (2000)
"""


@contextmanager
def writing(kept: Kept, *statements: str) -> Iterator[Connection]:
    """A transaction of the application's that has run these."""
    with psycopg.connect(kept.url) as session:
        for statement in statements:
            session.execute(statement.encode())
        yield session


def at_rest_then_defined_as(kept: Kept, more: dict[str, Any], text: str) -> None:
    """Applied by the command, when the worker that knew the other definition has gone."""
    kept.sync, kept.text = sync_of("docs", **more), text
    assert apply_to(kept)


def walk(kept: Kept) -> Any:
    """When the last walk began, and whether it is over."""
    return kept.app.execute("SELECT walk_started_at, backfill_done FROM freshvec.sync").fetchone()


def is_walked(kept: Kept) -> bool:
    return bool(walk(kept)[1])


@pytest.fixture
def rested(kept: Kept) -> Kept:
    """Kept by a worker that has gone."""
    with kept.running():
        pass
    return kept


@pytest.mark.parametrize(("more", "text"), DEFINITIONS.values(), ids=DEFINITIONS.keys())
def test_what_they_changed_is_found_once_they_are_over(rested: Kept, more: dict[str, Any], text: str) -> None:
    with writing(rested, UNNOTED) as session:
        at_rest_then_defined_as(rested, more, text)
        with running(rested.settings, rested.encoder) as worker:
            until("a walk is over", lambda: is_walked(rested))
            assert not status.is_fresh(rested.status())
            assert rested.app.execute("SELECT freshvec.is_fresh('docs', '1')").fetchone() == (False,)
            with connect(rested.settings.database.url, "test") as connection:
                assert not wait_until_fresh(connection, "docs", [], 0.1)
            session.commit()
            rested.comes_to_rest(worker)


def test_a_statement_that_goes_on_by_the_old_rules_and_draws_its_id_late(rested: Kept) -> None:
    """Its session has used the old function, and hears of no other while the statement runs."""
    late = "UPDATE docs SET views = 99 WHERE id = 1 AND (SELECT pg_advisory_xact_lock_shared(7) IS NOT NULL)"
    waits = "pg_locks WHERE locktype = 'advisory' AND objid = 7 AND NOT granted"
    with writing(rested, "UPDATE docs SET views = 1 WHERE id = 2") as session:
        session.commit()
        rested.app.execute("SELECT pg_advisory_lock(7)")
        thread = threading.Thread(target=session.execute, args=(late.encode(),))
        thread.start()
        until("it waits", lambda: count(rested.app, waits) == 1)
        at_rest_then_defined_as(rested, *WIDER)
        with running(rested.settings, rested.encoder) as worker:
            until("a walk is over", lambda: is_walked(rested))
            rested.app.execute("SELECT pg_advisory_unlock(7)")
            thread.join(60)
            session.commit()
            rested.comes_to_rest(worker)


@ON_18
def test_a_row_of_a_partition(kept: Kept) -> None:
    for statement in PARTITIONED.split(";"):
        kept.app.execute(statement.strip().encode())
    with kept.running():
        pass
    with writing(kept, UNNOTED.replace("docs", "one")) as session:
        at_rest_then_defined_as(kept, *WIDER)
        with running(kept.settings, kept.encoder) as worker:
            until("a walk is over", lambda: is_walked(kept))
            session.commit()
            kept.comes_to_rest(worker)


def test_a_worker_that_is_started_again_meanwhile_knows_of_them(rested: Kept) -> None:
    with writing(rested, UNNOTED) as session:
        at_rest_then_defined_as(rested, *WIDER)
        with running(rested.settings, rested.encoder):
            until("a walk is over", lambda: is_walked(rested))
        with running(rested.settings, rested.encoder) as worker:
            session.commit()
            rested.comes_to_rest(worker)


@ON_18
def test_nobody_walks_over_and_over_while_they_are_open(rested: Kept) -> None:
    with writing(rested, UNNOTED) as session:
        at_rest_then_defined_as(rested, *WIDER)
        with running(rested.settings, rested.encoder) as worker:
            until("a walk is over", lambda: is_walked(rested))
            begun = walk(rested)
            watched_until = time.monotonic() + 2.5
            while time.monotonic() < watched_until:
                assert walk(rested) == begun
            session.commit()
            rested.comes_to_rest(worker)
            assert walk(rested) != begun


@pytest.mark.parametrize(
    "statements",
    [(), ("SELECT FROM docs FOR UPDATE",), ("CREATE TABLE others (id int)", "INSERT INTO others VALUES (1)")],
    ids=["nobody", "who only reads", "who writes elsewhere"],
)
def test_who_did_not_write_to_the_table_makes_for_no_walk_more(
    rested: Kept, statements: tuple[str, ...]
) -> None:
    with writing(rested, *statements):
        at_rest_then_defined_as(rested, *WIDER)
        begun, is_over = walk(rested)
        assert not is_over
        with running(rested.settings, rested.encoder) as worker:
            wait_fresh(worker)
            assert rested.is_right()
            assert walk(rested) == (begun, True)


@ON_18
def test_a_walk_that_begins_awaits_who_is_over_soon(rested: Kept) -> None:
    with writing(rested, UNNOTED) as session:
        at_rest_then_defined_as(rested, *WIDER)
        begun, _ = walk(rested)
        with running(rested.settings, rested.encoder) as worker:
            until("it works", lambda: worker.keepers and worker.keepers[0].pipeline)
            session.commit()
            wait_fresh(worker)
            assert rested.is_right()
            assert walk(rested) == (begun, True)


def test_a_prepared_transaction() -> None:
    with (
        EmbeddedPostgres(18, max_prepared_transactions="2") as server,
        psycopg.connect(server.url(), autocommit=True) as app,
    ):
        app.execute("CREATE TABLE docs (id int PRIMARY KEY, body text, views int DEFAULT 0)")
        app.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 50) g")
        kept = Kept(server.url(), app, sync_of("docs", target={"type": "real[]"}))
        with kept.running():
            pass
        with writing(kept, UNNOTED) as session:
            at_rest_then_defined_as(kept, WIDER[0] | {"target": {"type": "real[]"}}, WIDER[1])
            with running(kept.settings, kept.encoder):
                until("a walk is over", lambda: is_walked(kept))
                session.execute("PREPARE TRANSACTION 'payment 7'")
                with connect(kept.settings.database.url, "test") as connection:
                    assert not wait_until_fresh(connection, "docs", [], 2.5)
                app.execute("COMMIT PREPARED 'payment 7'")
                kept.comes_to_rest()
        kept.close()
