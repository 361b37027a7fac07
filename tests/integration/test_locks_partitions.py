"""Locks of a partitioned table: all of them at one moment, so that nobody waits in a circle."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from freshvec.cli import plan_view
from freshvec.db import connect
from freshvec.schema.changes import in_the_way
from freshvec.schema.plan import plan
from tests.integration.at_rest import Kept
from tests.integration.locking import (
    NULL,
    ON_18,
    apply_to,
    has_triggers,
    is_older_than,
    open_transaction,
    remove_from,
)
from tests.support import count, exists, until


@pytest.fixture
def partitioned(kept: Kept) -> Kept:
    kept.app.execute("DROP TABLE docs")
    kept.app.execute("CREATE TABLE docs (id int PRIMARY KEY, body text) PARTITION BY RANGE (id)")
    for number in range(3):
        bounds = f"FROM ({number * 100}) TO ({number * 100 + 100 if number < 2 else 'MAXVALUE'})"
        kept.app.execute(f"CREATE TABLE docs_{number} PARTITION OF docs FOR VALUES {bounds}".encode())
    kept.app.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(0, 299) g")
    return kept


@pytest.mark.parametrize(("either_url", "is_watched"), [("18", False), ("16", True)], indirect=["either_url"])
def test_a_partition_that_is_being_detached_concurrently(partitioned: Kept, is_watched: bool) -> None:
    """No new query sees its rows, and it cannot be altered any more."""
    if is_watched:
        apply_to(partitioned)
    pending = "pg_inherits WHERE inhdetachpending"
    detach = b"ALTER TABLE docs DETACH PARTITION docs_1 CONCURRENTLY"
    with (
        ThreadPoolExecutor() as pool,
        psycopg.connect(partitioned.url, autocommit=True) as detaching,
        open_transaction(partitioned, "SELECT * FROM docs") as reader,
    ):
        detached = pool.submit(detaching.execute, detach)
        until("it waits for the reader", lambda: count(partitioned.app, pending) == 1)
        with partitioned.running() as worker:
            partitioned.comes_to_rest(worker)
            reader.commit()
            detached.result(60)
            partitioned.comes_to_rest(worker)
    assert remove_from(partitioned)
    assert not has_triggers(partitioned)


@ON_18
@pytest.mark.parametrize("place", ["docs_1", "docs"])
def test_while_a_partition_is_held_the_others_are_written(partitioned: Kept, place: str) -> None:
    statement = f"UPDATE {place} SET body = 'held' WHERE id = 150"
    with open_transaction(partitioned, statement) as session, ThreadPoolExecutor() as pool:
        applying = pool.submit(apply_to, partitioned, 60.0)
        until("apply waits", lambda: exists(partitioned.app, "freshvec.sync"))
        partitioned.app.execute("SET statement_timeout = '5s'")
        while not is_older_than(partitioned, session, 0.8):
            partitioned.app.execute("UPDATE docs SET body = 'through the parent' WHERE id = 50")
            partitioned.app.execute("UPDATE docs_1 SET body = 'directly' WHERE id = 151")
        assert not applying.done()
        session.commit()
        assert applying.result(60)
    assert not apply_to(partitioned)
    assert remove_from(partitioned)


class Writers:
    """Transactions that change rows of two tables in any order, of each writer its own."""

    def __init__(self, url: str, number: int) -> None:
        self._url, self._number = url, number
        self._stopping = threading.Event()
        self.done = 0

    def stop(self) -> None:
        self._stopping.set()

    def run(self) -> int:
        with psycopg.connect(self._url, autocommit=True) as session:
            while not self._stopping.wait(random.uniform(0, 0.01)):
                tables = random.sample(["docs_0", "docs_1", "docs_2", "docs"], 2)
                with session.transaction():
                    for table in tables:
                        statement = f"UPDATE {table} SET body = 'edited' WHERE id % 100 = {self._number}"
                        session.execute(statement.encode())
                self.done += 1
        return self.done


def test_writers_that_take_partitions_in_any_order_never_deadlock(partitioned: Kept) -> None:
    name = partitioned.app.info.dbname  # whose sessions look for deadlocks before an attempt is over
    partitioned.app.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '5ms'".encode())
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    writers = [Writers(partitioned.url, number) for number in range(3)]
    with ThreadPoolExecutor() as pool:
        running_ones = [pool.submit(writer.run) for writer in writers]
        try:
            for _ in range(3):
                until("they write", lambda: all(writer.done > 0 for writer in writers))
                assert apply_to(partitioned, 60.0)
                assert remove_from(partitioned, 60.0)
        finally:
            for writer in writers:
                writer.stop()
        assert all(writer.result(60) for writer in running_ones), "none has failed"
    assert partitioned.app.execute(deadlocks).fetchone() == (0,)


@ON_18
def test_a_plan_says_who_is_in_the_way_of_what_it_would_lock(partitioned: Kept) -> None:
    def planned() -> tuple[list[str], list[str]]:
        """Its lines, and who is in the way as its JSON has it."""
        with connect(partitioned.settings.database.url, "plan") as connection:
            one = plan(connection, partitioned.settings.sync[0], NULL)
            holders = in_the_way(connection, one)
            named = plan_view.as_json(one, None, holders)["in_the_way"]
            return list(plan_view.lines(one, None, holders)), named

    assert planned()[1] == []
    with open_transaction(partitioned, "UPDATE docs_1 SET body = 'held' WHERE id = 100") as session:
        lines, named = planned()
        (holder,) = named
        assert f"reports (pid {session.info.backend_pid}, user postgres, in a transaction since " in holder
        assert holder.endswith("on public.docs_1")
        assert "  in the way reports (pid" in "\n".join(lines)
        assert max(map(len, lines)) <= 80
        session.rollback()
        apply_to(partitioned)
    with open_transaction(partitioned, "UPDATE docs_1 SET body = 'held' WHERE id = 100"):
        assert planned()[1] == [], "what is applied takes no lock"
