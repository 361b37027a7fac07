"""Partitions and children that come and go: their rows are followed, the others' rows are not read again."""

import pytest

from tests.integration.at_rest import Kept
from tests.support import Connection, count, sync_of, until

PARTITIONED = """
CREATE TABLE docs (id int PRIMARY KEY, body text) PARTITION BY RANGE (id);
CREATE TABLE docs_low PARTITION OF docs FOR VALUES FROM (0) TO (1000);
CREATE TABLE docs_high PARTITION OF docs FOR VALUES FROM (1000) TO (2000);
CREATE TABLE docs_rest PARTITION OF docs DEFAULT;
INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 1999, 20) g
"""
INHERITED = """
CREATE TABLE docs (id int PRIMARY KEY, body text);
CREATE TABLE docs_low (PRIMARY KEY (id)) INHERITS (docs);
INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 99) g;
INSERT INTO docs_low SELECT g, 'text ' || g FROM generate_series(100, 199) g
"""
PARTITION_EVENTS = {
    "attached with rows": """CREATE TABLE docs_new (id int PRIMARY KEY, body text);
        INSERT INTO docs_new SELECT g, 'attached ' || g FROM generate_series(3000, 3100) g;
        ALTER TABLE docs ATTACH PARTITION docs_new FOR VALUES FROM (3000) TO (4000);
        UPDATE docs_new SET body = 'directly' WHERE id = 3000;
        UPDATE docs SET body = 'through the parent' WHERE id = 3001""",
    "detached with rows": """ALTER TABLE docs DETACH PARTITION docs_high;
        UPDATE docs_high SET body = 'nobody cares'""",
    "detached concurrently": """DELETE FROM docs_rest;
        DROP TABLE docs_rest;
        ALTER TABLE docs DETACH PARTITION docs_high CONCURRENTLY""",
    "detached and attached again": """ALTER TABLE docs DETACH PARTITION docs_high;
        DELETE FROM docs_high WHERE id < 1100;
        INSERT INTO docs_high VALUES (1002, 'while detached');
        ALTER TABLE docs ATTACH PARTITION docs_high FOR VALUES FROM (1000) TO (2000)""",
    "dropped": "DROP TABLE docs_high",
    "new, filled directly": """CREATE TABLE docs_new PARTITION OF docs FOR VALUES FROM (3000) TO (4000);
        INSERT INTO docs_new SELECT g, 'directly ' || g FROM generate_series(3000, 3100) g""",
    "new, filled through the parent": """
        CREATE TABLE docs_new PARTITION OF docs FOR VALUES FROM (3000) TO (4000);
        INSERT INTO docs SELECT g, 'through ' || g FROM generate_series(3000, 3100) g""",
    "sub-partitions": """CREATE TABLE docs_new (id int PRIMARY KEY, body text) PARTITION BY RANGE (id);
        CREATE TABLE docs_new_1 PARTITION OF docs_new FOR VALUES FROM (3000) TO (3050);
        CREATE TABLE docs_new_2 PARTITION OF docs_new FOR VALUES FROM (3050) TO (4000);
        INSERT INTO docs_new SELECT g, 'below ' || g FROM generate_series(3000, 3100) g;
        ALTER TABLE docs ATTACH PARTITION docs_new FOR VALUES FROM (3000) TO (4000);
        UPDATE docs SET id = 3500, body = 'moved' WHERE id = 3000;
        ALTER TABLE docs_new DETACH PARTITION docs_new_1""",
}
CHILD_EVENTS = {
    "child made and filled": """CREATE TABLE docs_new (PRIMARY KEY (id)) INHERITS (docs);
        INSERT INTO docs_new SELECT g, 'new ' || g FROM generate_series(300, 350) g""",
    "child made with rows": """CREATE TABLE docs_new (id int PRIMARY KEY, body text);
        INSERT INTO docs_new SELECT g, 'new ' || g FROM generate_series(300, 350) g;
        ALTER TABLE docs_new INHERIT docs;
        UPDATE docs_new SET body = 'directly' WHERE id = 300;
        UPDATE docs SET body = 'through the parent' WHERE id IN (1, 150, 301)""",
    "child disowned": "ALTER TABLE docs_low NO INHERIT docs",
    "child dropped": "DROP TABLE docs_low",
}
CASES = [
    *(pytest.param(PARTITIONED, event, id=name) for name, event in PARTITION_EVENTS.items()),
    *(pytest.param(INHERITED, event, id=name) for name, event in CHILD_EVENTS.items()),
]


def happen(app: Connection, statements: str) -> None:
    """Each statement for itself, as an application sends them."""
    for statement in statements.split(";\n"):
        app.execute(statement.strip().encode())


def walks(app: Connection) -> object:
    """When the last walk began and how far it went: another walk changes it."""
    return app.execute("SELECT walk_started_at, walk_rows, proven_at FROM freshvec.sync").fetchone()


@pytest.mark.parametrize(("tables", "event"), CASES)
def test_what_comes_and_goes_is_followed_and_the_rest_is_not_walked(
    either_url: str, app: Connection, tables: str, event: str
) -> None:
    happen(app, tables)
    kept = Kept(either_url, app)
    with kept.running() as worker:
        before = walks(app)
        versions = "SELECT xmin::text, ctid::text FROM docs_embedding WHERE id = 61"
        row = app.execute(versions).fetchone()
        happen(app, event)
        kept.comes_to_rest(worker)
        assert walks(app) == before, "the other tables were walked"
        assert app.execute(versions).fetchone() == row


@pytest.mark.parametrize(("tables", "event"), CASES)
def test_what_came_and_went_while_no_worker_ran_is_found(
    either_url: str, app: Connection, tables: str, event: str
) -> None:
    happen(app, tables)
    kept = Kept(either_url, app)
    with kept.running():
        pass
    happen(app, event)
    with kept.running():
        kept.comes_to_rest()


@pytest.mark.parametrize("tables", [PARTITIONED, INHERITED], ids=["partition", "child"])
def test_a_sync_on_one_member_follows_what_its_parent_does_to_it(
    either_url: str, app: Connection, tables: str
) -> None:
    happen(app, tables)
    kept = Kept(either_url, app, sync_of("docs_low"), table="docs_low", target="docs_low_embedding")
    with kept.running() as worker:
        member = count(app, "docs_low")
        assert count(app, "docs_low_embedding") == member
        app.execute("UPDATE docs SET body = 'through the parent' WHERE id IN (101, 121, 1001)")
        app.execute("DELETE FROM docs WHERE id = 141")
        if tables == PARTITIONED:
            app.execute("INSERT INTO docs VALUES (102, 'through the parent'), (1002, 'elsewhere')")
            app.execute("UPDATE docs SET id = id + 1001 WHERE id = 161")
            app.execute("UPDATE docs SET id = id - 999 WHERE id = 1241")
            app.execute("UPDATE docs SET id = 262, body = 'came' WHERE id = 1261")
        kept.comes_to_rest()
        assert count(app, "docs_low") != member
        app.execute("TRUNCATE docs")
        kept.comes_to_rest(worker)


def test_rows_of_a_lost_partition_are_no_faults_of_the_next_walk(either_url: str, app: Connection) -> None:
    happen(app, PARTITIONED)
    kept = Kept(either_url, app)
    with kept.running() as worker:
        app.execute("ALTER TABLE docs DETACH PARTITION docs_high")
        kept.comes_to_rest(worker)
        before = walks(app)
        app.execute("INSERT INTO freshvec.rescan (sync, reason) VALUES ('docs', 'test')")
        worker.sweep()
        until(
            "a walk is over", lambda: count(app, "freshvec.sync WHERE backfill_done") and walks(app) != before
        )
        kept.comes_to_rest(worker)
        assert kept.status()["proven_found"] == 0


LARGE = """CREATE TABLE docs_new (id int PRIMARY KEY, body text);
INSERT INTO docs_new SELECT g, 'attached ' || g FROM generate_series(3000, 4999) g;
"""
ATTACHED = {
    "partition": (PARTITIONED, "ALTER TABLE docs ATTACH PARTITION docs_new FOR VALUES FROM (3000) TO (5000)"),
    "child": (INHERITED, "ALTER TABLE docs_new INHERIT docs"),
}


@pytest.mark.parametrize(("tables", "attach"), ATTACHED.values(), ids=ATTACHED.keys())
@pytest.mark.parametrize(("queue_bytes", "is_walked"), [(2**16, True), (2**18, False)])
def test_rows_of_a_member_for_which_the_queue_has_no_room_are_walked(
    either_url: str, app: Connection, tables: str, attach: str, queue_bytes: int, is_walked: bool
) -> None:
    """2,000 entries of a bigint or int take 130 kB."""
    happen(app, tables)
    kept = Kept(either_url, app, sync_of("docs", queue_bytes=queue_bytes))
    with kept.running() as worker:
        before = walks(app)
        happen(app, LARGE + attach)
        kept.comes_to_rest(worker)
        assert (walks(app) != before) == is_walked
        size = "SELECT pg_relation_size('freshvec.queue_docs')"
        (queue,) = app.execute(size).fetchone() or (0,)
        assert queue < queue_bytes
