"""Requests for a walk in serializable transactions: none fails because another one asks as well."""

from collections.abc import Iterator

import psycopg
import pytest

from tests.integration.at_rest import Kept
from tests.support import Connection, NullEncoder, backfill, count


@pytest.fixture
def both(kept: Kept) -> Iterator[tuple[Connection, Connection]]:
    kept.sync["queue_bytes"] = 65536
    backfill(kept.settings, NullEncoder())
    serializable = psycopg.IsolationLevel.SERIALIZABLE
    with psycopg.connect(kept.url) as one, psycopg.connect(kept.url) as other:
        one.isolation_level = other.isolation_level = serializable
        yield one, other


def fill_or_rename(kept: Kept, what: str) -> str:
    """Gives a column whose change cannot be noted from then on."""
    if what == "renamed":
        kept.app.execute("ALTER TABLE docs RENAME body TO text")
        return "text"
    kept.app.execute("ALTER TABLE freshvec.queue_docs SET (autovacuum_enabled = off)")
    fill = "INSERT INTO freshvec.queue_docs (bulk, k1) SELECT true, g FROM generate_series(1, 5000) AS g"
    kept.app.execute(fill)
    return "body"


@pytest.mark.parametrize("what", ["renamed", "full"])
def test_two_that_ask_both_commit(kept: Kept, both: tuple[Connection, Connection], what: str) -> None:
    column = fill_or_rename(kept, what)
    for number, session in enumerate(both, 1):
        session.execute(f"UPDATE docs SET {column} = 'unnoted' WHERE id = {number}".encode())
    for session in both:
        session.commit()
    assert count(kept.app, "freshvec.rescan") == 2


def test_each_asks_once_and_again_where_its_request_was_undone(
    kept: Kept, both: tuple[Connection, Connection]
) -> None:
    column, (session, _) = fill_or_rename(kept, "renamed"), both
    change = f"UPDATE docs SET {column} = {column} || '!' WHERE id = 1".encode()
    session.execute("SAVEPOINT before")
    session.execute(change)
    session.execute("ROLLBACK TO before")
    for _ in range(3):
        session.execute(change)
    session.commit()
    assert count(kept.app, "freshvec.rescan") == 1
    session.execute(change)
    session.commit()
    assert count(kept.app, "freshvec.rescan") == 2, "another transaction asks for itself"


@pytest.mark.parametrize("noted", [1, 70])
def test_two_that_bring_what_was_replicated_both_commit(
    kept: Kept, both: tuple[Connection, Connection], noted: int
) -> None:
    """Their row trigger has no need to look at what the other appends."""
    kept.app.execute("INSERT INTO docs SELECT g, 'text' FROM generate_series(51, 200) AS g")
    backfill(kept.settings, NullEncoder())
    kept.app.execute("ALTER FUNCTION freshvec.capture_row_docs() SET enable_seqscan = on")
    for scan in ("index", "indexonly", "bitmap"):  # a small queue is read as a whole
        kept.app.execute(f"ALTER FUNCTION freshvec.capture_row_docs() SET enable_{scan}scan = off".encode())
    for number, session in enumerate(both):
        session.execute("SET session_replication_role = replica")
        session.execute("SET enable_seqscan = off")
        session.commit()
        rows = (number * 100 + 1, number * 100 + noted)
        session.execute("UPDATE docs SET body = 'brought' WHERE id BETWEEN %s AND %s", rows)
    for session in both:
        session.commit()
    assert count(kept.app, "freshvec.queue_docs") == 2 * noted
    assert count(kept.app, "freshvec.queue_docs WHERE bulk") == 2 * max(0, noted - 64)
