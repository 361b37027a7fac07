"""A table filled by logical replication: the subscriber's sync sees each change once, and so it does of a
session that only says that it replicates. A worker reads what was noted afterwards, so that entries can be
counted.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest

from freshvec.embedded import EmbeddedPostgres
from tests.staleness import stale
from tests.support import (
    Connection,
    NullEncoder,
    backfill,
    count,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
)

PLAIN = "CREATE TABLE docs (id int PRIMARY KEY, body text, views int DEFAULT 0)"
PARTITIONED = """
CREATE TABLE docs (id int PRIMARY KEY, body text, views int DEFAULT 0) PARTITION BY RANGE (id);
CREATE TABLE docs_low PARTITION OF docs FOR VALUES FROM (MINVALUE) TO (50);
CREATE TABLE docs_high PARTITION OF docs FOR VALUES FROM (50) TO (MAXVALUE);
"""


@pytest.fixture(scope="module")
def publisher18() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(18, wal_level="logical", fsync="off") as server:
        yield server


@pytest.fixture(scope="module")
def publisher16() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(16, wal_level="logical", fsync="off") as server:
        yield server


@dataclass
class Pair:
    """Two servers: `docs` is published by one, and arrives at the other, where its owner has few rights."""

    publisher: Connection
    subscriber: Connection
    url: str  # of the subscriber

    def follow(self) -> None:
        """Until the subscriber has what the publisher has."""
        rows = "SELECT array_agg(d ORDER BY id)::text FROM docs AS d"
        wanted = self.publisher.execute(rows).fetchone()
        until("the rows have arrived", lambda: self.subscriber.execute(rows).fetchone() == wanted)

    def entries(self) -> int:
        return count(self.subscriber, "freshvec.queue_docs")

    def settle(self) -> None:
        """Let a worker do what waits, and look at every vector."""
        encoder = NullEncoder()
        with running(settings_for(self.url, sync_of("docs")), encoder) as worker:
            wait_fresh(worker)
        assert not stale(self.subscriber, encoder)
        assert self.entries() == 0


@pytest.fixture(
    params=[("18", PLAIN), ("16", PLAIN), ("18", PARTITIONED)], ids=["18", "16", "18 into partitions"]
)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    version, table = request.param
    server: EmbeddedPostgres = request.getfixturevalue(f"publisher{version}")
    url: str = request.getfixturevalue("url" if version == "18" else "url16")
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        with (
            psycopg.connect(server.url(str(name)), autocommit=True) as publisher,
            psycopg.connect(url, autocommit=True) as subscriber,
        ):
            subscriber.execute("DROP ROLE IF EXISTS app")
            subscriber.execute("CREATE ROLE app")
            subscriber.execute("GRANT CREATE ON SCHEMA public TO app")
            publisher.execute(PLAIN)
            publisher.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 100) g")
            publisher.execute("CREATE PUBLICATION docs FOR TABLE docs")
            publisher.execute("CREATE PUBLICATION nothing")
            subscriber.execute("SET ROLE app")
            subscriber.execute(table)
            subscriber.execute("RESET ROLE")
            backfill(settings_for(url, sync_of("docs")), NullEncoder())
            subscriber.execute(
                f"CREATE SUBSCRIPTION {name} CONNECTION '{server.url(str(name))}' PUBLICATION docs, nothing"
            )
            yield Pair(publisher, subscriber, url)
            subscriber.execute(f"DROP SUBSCRIPTION IF EXISTS {name}")
            subscriber.execute("DROP OWNED BY app CASCADE")
            subscriber.execute("DROP ROLE app")
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_the_initial_copy_is_noted_once(pair: Pair) -> None:
    pair.follow()
    assert pair.entries() == 100
    pair.settle()


# A statement of the publisher's, and how many entries it makes at the subscriber.
CHANGES = {
    "INSERT INTO docs SELECT g, 'new ' || g FROM generate_series(101, 110) g": 10,
    "UPDATE docs SET body = 'edited' WHERE id <= 5": 5,
    "UPDATE docs SET views = views + 1": 0,
    "DELETE FROM docs WHERE id BETWEEN 6 AND 8": 3,
    "UPDATE docs SET id = 200 WHERE id = 9": 2,  # the old key and the new one
    "UPDATE docs SET id = -1 WHERE id = 200": 2,  # into another partition, where there are any
    "UPDATE docs SET body = NULL WHERE id = 10": 1,
}


def test_every_change_is_noted_once(pair: Pair) -> None:
    pair.follow()
    pair.settle()
    for statement, entries in CHANGES.items():
        before = pair.entries()
        pair.publisher.execute(statement)
        pair.follow()
        assert (statement, pair.entries() - before) == (statement, entries)
    pair.settle()


LARGE = """
BEGIN;
UPDATE docs SET body = 'edited' WHERE id <= 40;
SAVEPOINT kept; UPDATE docs SET body = 'edited' WHERE id BETWEEN 41 AND 70; RELEASE kept;
UPDATE docs SET body = 'edited' WHERE id > 70;
COMMIT
"""


@pytest.mark.parametrize("streaming", ["off", "on", "parallel"])
def test_a_large_transaction_counts_as_bulk_from_its_65th_row_on(pair: Pair, streaming: str) -> None:
    """As one with partitions does; also where it is applied while it runs, by a worker of its own."""
    pair.follow()
    (name,) = pair.subscriber.execute("SELECT current_database()").fetchone() or ("",)
    pair.publisher.execute(f"ALTER DATABASE {name} SET debug_logical_replication_streaming = immediate")
    pair.subscriber.execute(f"ALTER SUBSCRIPTION {name} SET (streaming = {streaming})")
    pair.settle()
    for statement in (LARGE, "UPDATE docs SET body = 'and then one' WHERE id = 1"):
        pair.publisher.execute(statement)
    pair.follow()
    bulk = pair.subscriber.execute("SELECT bulk, count(*) FROM freshvec.queue_docs GROUP BY 1 ORDER BY 1")
    assert bulk.fetchall() == [(False, 64 + 1), (True, 36)]
    pair.settle()


def test_a_key_that_the_replica_identity_names_is_followed(pair: Pair) -> None:
    pair.follow()
    pair.settle()
    pair.publisher.execute("ALTER TABLE docs REPLICA IDENTITY FULL")
    pair.publisher.execute("UPDATE docs SET body = 'edited', id = id + 1000 WHERE id <= 3")
    pair.publisher.execute("DELETE FROM docs WHERE id = 4")
    pair.follow()
    assert pair.entries() == 7
    pair.settle()


def test_a_truncate_is_followed(pair: Pair) -> None:
    pair.follow()
    pair.settle()
    pair.publisher.execute("TRUNCATE docs")
    pair.publisher.execute("INSERT INTO docs VALUES (1, 'again'), (500, 'new')")
    pair.follow()
    assert pair.entries() == 2
    assert pair.subscriber.execute("SELECT reason FROM freshvec.rescan").fetchall() == [("truncate",)]
    pair.settle()
    assert count(pair.subscriber, "docs_embedding") == 2


def test_a_subscriber_that_is_copied_anew_is_fresh_again(pair: Pair) -> None:
    pair.follow()
    (name,) = pair.subscriber.execute("SELECT current_database()").fetchone() or ("",)
    encoder = NullEncoder()
    with running(settings_for(pair.url, sync_of("docs")), encoder) as worker:
        wait_fresh(worker)
        pair.subscriber.execute(f"ALTER SUBSCRIPTION {name} DROP PUBLICATION docs")
        pair.publisher.execute("DELETE FROM docs WHERE id <= 20")
        pair.publisher.execute("UPDATE docs SET body = 'while it was away' WHERE id > 90")
        pair.subscriber.execute("TRUNCATE docs")
        until("nothing is left", lambda: count(pair.subscriber, "docs_embedding") == 0)
        pair.subscriber.execute(f"ALTER SUBSCRIPTION {name} ADD PUBLICATION docs")
        pair.follow()
        until("every row is fresh", lambda: not stale(pair.subscriber, encoder))
    assert count(pair.subscriber, "docs_embedding") == 80


def test_a_subscriber_that_is_promoted_notes_what_is_written_to_it(pair: Pair) -> None:
    pair.follow()
    pair.settle()
    (name,) = pair.subscriber.execute("SELECT current_database()").fetchone() or ("",)
    pair.subscriber.execute(f"DROP SUBSCRIPTION {name}")
    for statement, entries in CHANGES.items():
        before = pair.entries()
        pair.subscriber.execute(statement)
        assert (statement, pair.entries() - before) == (statement, entries)
    pair.settle()


def test_a_session_that_says_it_replicates_is_followed(pair: Pair) -> None:
    pair.follow()
    pair.settle()
    with psycopg.connect(pair.url, autocommit=True) as session:
        session.execute("SET session_replication_role = replica")
        for statement, entries in CHANGES.items():
            before = pair.entries()
            session.execute(statement)
            assert (statement, pair.entries() - before) == (statement, entries)
        before = pair.entries()
        with session.cursor().copy("COPY docs (id, body) FROM STDIN") as copy:
            for number in range(1000, 1100):
                copy.write_row((number, f"copied {number}"))
        assert pair.entries() - before == 100
        pair.settle()
        session.execute("TRUNCATE docs")
    pair.settle()
    assert count(pair.subscriber, "docs_embedding") == 0
