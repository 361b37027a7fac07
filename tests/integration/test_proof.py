"""The walk that proves, and vectors compared: what hashes cannot tell is found and mended."""

from freshvec.db import connect
from freshvec.encoding.loading import Models
from freshvec.scans.verify import WRONG_VECTOR, verify, verify_vectors
from freshvec.source.bound import BoundSync
from tests.staleness import stale
from tests.support import (
    MODEL,
    Connection,
    NullEncoder,
    backfill,
    bound_sync,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
)

ROWS = "INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 300) g"
SPOIL = """
SET freshvec.is_ours = on;
UPDATE docs_embedding SET embedding = '[1,0,0,0,0,0,0,0]' WHERE id IN (7, 200)
"""


def test_wrong_vectors_are_found_and_made_anew(url: str, docs: Connection) -> None:
    docs.execute(ROWS)
    encoder, settings = NullEncoder(), settings_for(url, sync_of("docs"))
    backfill(settings, encoder)
    docs.execute(SPOIL)
    dispatcher = Models(settings).dispatcher(MODEL, encoder)
    with connect(settings.database.url, "test") as connection:
        bound: BoundSync = bound_sync(connection, settings, encoder)
        report = verify(connection, bound)
        assert report.is_fresh, "hashes cannot tell"
        verify_vectors(connection, bound, dispatcher, report, 300, repair=True)
    dispatcher.stop(timeout=2.0)
    assert report.problems == {WRONG_VECTOR: 2}
    assert sorted(report.examples[WRONG_VECTOR]) == [("200",), ("7",)]
    with running(settings, encoder) as worker:
        wait_fresh(worker)
        assert stale(docs, encoder) == []


def test_the_walk_that_proves_mends_vectors_and_says_so(url: str, docs: Connection) -> None:
    docs.execute(ROWS)
    encoder = NullEncoder()
    backfill(settings_for(url, sync_of("docs")), encoder)
    docs.execute(SPOIL)
    docs.execute("UPDATE freshvec.sync SET proven_at = now() - interval '2 days'")
    seen = (
        "SELECT proven_found, proven_vectors FROM freshvec.status WHERE proven_at > now() - interval '1 day'"
    )
    with running(settings_for(url, sync_of("docs")), encoder):
        until("the walk ends", lambda: docs.execute(seen).fetchone() is not None)
    assert docs.execute(seen).fetchone() == (2, 298)
    assert stale(docs, encoder) == []


def test_rows_that_wait_in_the_queue_are_no_faults(url: str, docs: Connection) -> None:
    docs.execute(ROWS)
    encoder, settings = NullEncoder(), settings_for(url, sync_of("docs"))
    backfill(settings, encoder)
    docs.execute("UPDATE docs SET body = 'queued' WHERE id <= 10")
    docs.execute("DELETE FROM docs WHERE id > 290")
    docs.execute("INSERT INTO docs VALUES (1000, 'queued as well')")
    docs.execute("ALTER TABLE docs DISABLE TRIGGER ALL")
    docs.execute("UPDATE docs SET body = 'seen by nobody' WHERE id = 100")
    docs.execute("DELETE FROM docs WHERE id = 101")
    with connect(settings.database.url, "test") as connection:
        report = verify(connection, bound_sync(connection, settings, encoder))
    assert report.problems == {"different": 1, "orphaned": 1}
    assert report.rows == 290


def test_far_more_targets_than_rows_are_verified_in_parts(url: str, docs: Connection) -> None:
    encoder, settings = NullEncoder(), settings_for(url, sync_of("docs"))
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 25000) g")
    backfill(settings, encoder)
    docs.execute("ALTER TABLE docs DISABLE TRIGGER ALL")
    docs.execute("DELETE FROM docs WHERE id > 20")
    with connect(settings.database.url, "test") as connection:
        report = verify(connection, bound_sync(connection, settings, encoder))
    assert (report.rows, report.problems) == (20, {"orphaned": 24980})


def test_rows_that_cannot_be_read_are_passed_in_the_order_of_keys(url: str, docs: Connection) -> None:
    """A page with such a row is read by its keys: 10 comes after 9, not before 2."""
    docs.execute(
        "INSERT INTO docs SELECT g, CASE WHEN g % 7 = 0 THEN 'no' ELSE g::text END"
        " FROM generate_series(1, 99) g"
    )
    encoder = NullEncoder()
    settings = settings_for(url, sync_of("docs", expression="(body::int)::text"), page_rows=10)
    backfill(settings, encoder)
    found = "SELECT count(*) FILTER (WHERE embedding IS NOT NULL), count(encode_error) FROM docs_embedding"
    assert docs.execute(found).fetchone() == (85, 14)
    with connect(settings.database.url, "test") as connection:
        report = verify(connection, bound_sync(connection, settings, encoder))
    assert report.problems == {"failed": 14}
