"""Rows whose text cannot be read, rows that `where` leaves out, and texts too long to be held together."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, cast

import psycopg
import pytest

from freshvec.config import Settings
from freshvec.db import connect
from freshvec.health import status
from freshvec.scans.verify import verify
from freshvec.schema.apply import apply
from freshvec.schema.migrations import migrate
from freshvec.source import rows
from freshvec.source.rows import RowReader
from tests.support import (
    Connection,
    NullEncoder,
    backfill,
    bound_sync,
    content_hash,
    count,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
)

RAISES = """
CREATE FUNCTION shout(body text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
$$ BEGIN IF body = 'bad' THEN RAISE EXCEPTION 'shout does not like %', body; END IF; RETURN body; END $$;
CREATE FUNCTION hush(body text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
$$ BEGIN IF body = 'bad' THEN RAISE 'hush' USING ERRCODE = 'QUIET'; END IF; RETURN body; END $$
"""
# What is declared, a text that can be read, one that cannot, and what is said of that.
UNREADABLE: dict[str, tuple[dict[str, object], str, str, str]] = {
    "JSON": (
        {"expression": "body::json->>'title'"},
        '{"title": "fine"}',
        "not json",
        "invalid input syntax for type json",
    ),
    "nested JSON": (
        {"expression": "body::json->>'title'"},
        '{"title": "fine"}',
        "[" * 100_000,
        "stack depth limit exceeded",
    ),
    "division": ({"expression": "(100 / length(body))::text || body"}, "fine", "", "division by zero"),
    "own function": ({"expression": "public.shout(body)"}, "fine", "bad", "shout does not like bad"),
    "own code": ({"expression": "public.hush(body)"}, "fine", "bad", "hush"),
    "where": ({"columns": ["body"], "where": "1 / length(body) >= 0"}, "fine", "", "division by zero"),
    "cast": ({"expression": "(body::int + 1)::text"}, "1", "one", "invalid input syntax for type integer"),
}
CASES = [(version, kind) for version in ("18", "16") for kind in UNREADABLE]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]} {case[1]}")
def unreadable(request: pytest.FixtureRequest) -> Iterator[tuple[str, Connection, str]]:
    """URL, the application's connection, and the kind; `docs` has 40 rows that can be read."""
    version, kind = request.param
    url: str = request.getfixturevalue("url" if version == "18" else "url16")
    with psycopg.connect(url, autocommit=True) as application:
        application.execute(RAISES)
        application.execute("CREATE TABLE docs (id int PRIMARY KEY, body text)")
        application.execute(
            "INSERT INTO docs SELECT g, %s FROM generate_series(1, 40) g", (UNREADABLE[kind][1],)
        )
        yield url, application, kind


def failed(application: Connection) -> list[int]:
    query = "SELECT id FROM docs_embedding WHERE encode_error IS NOT NULL ORDER BY id"
    return [row for (row,) in application.execute(query)]


def assert_found_by_the_backfill(application: Connection, message: str) -> None:
    """The rows that cannot be read are known with the reason, and only they have no vector."""
    assert failed(application) == [1, 15, 20, 40]
    unread = application.execute(
        "SELECT id FROM docs LEFT JOIN docs_embedded e USING (id) WHERE e.id IS NULL"
    )
    assert [row for (row,) in unread] == [1, 15, 20, 40]
    query = "SELECT encode_error FROM docs_embedding WHERE id = 15"
    (error,) = application.execute(query).fetchone() or ("",)
    assert error.startswith("its text cannot be read: ")
    assert message in error


def assert_told_of(settings: Settings, encoder: NullEncoder, rows: int, message: str) -> None:
    """Both `verify` and the status tell of the twelve that are left."""
    with connect(settings.database.url, "test") as connection:
        report = verify(connection, bound_sync(connection, settings, encoder))
        assert dict(report.problems) == {"failed": 12}
        assert report.rows == rows
        assert report.examples["failed"][:3] == [("2",), ("15",), ("20",)]
        listed = status.failures(connection)["docs"]
        assert message in listed[0]["error"]
        (row,) = status.read(connection)
        assert row["rows_failed"] == 12


def test_a_row_that_cannot_be_read_delays_nobody(unreadable: tuple[str, Connection, str]) -> None:
    """Found by a backfill at the first, a middle and the last place of its pages; live; and in bulk."""
    url, application, kind = unreadable
    declared, good, bad, message = UNREADABLE[kind]
    application.execute("UPDATE docs SET body = %s WHERE id IN (1, 15, 20, 40)", (bad,))
    settings = settings_for(url, sync_of("docs", **cast(Any, declared)), page_rows=10, sweep_seconds=600)
    encoder = NullEncoder()
    with running(settings, encoder) as worker:
        wait_fresh(worker)
        assert_found_by_the_backfill(application, message)
        pipeline = worker.keepers[0].pipeline

        application.execute("UPDATE docs SET body = %s WHERE id IN (2, 30)", (bad,))
        application.execute("INSERT INTO docs VALUES (50, %s), (51, %s), (52, %s)", (bad, good, bad))
        until("live errors are kept", lambda: failed(application) == [1, 2, 15, 20, 30, 40, 50, 52])
        until("their neighbour is fresh", lambda: count(application, "docs_embedded WHERE id = 51") == 1)
        assert count(application, "docs_embedded WHERE id IN (2, 30)") == 0, "an old vector is not kept"

        application.execute(
            f"INSERT INTO docs SELECT g, CASE WHEN g % 50 = 0 THEN '{bad}' ELSE '{good}' END"
            " FROM generate_series(1000, 1300) g"
        )
        bulk = [1000, 1050, 1100, 1150, 1200, 1250, 1300]
        until("errors in bulk are kept", lambda: failed(application)[8:] == bulk)
        until("and the others fresh", lambda: count(application, "docs_embedded WHERE id >= 1000") == 294)

        application.execute("UPDATE docs SET body = %s WHERE id IN (1, 1300)", (good,))
        until(
            "an edit releases a row", lambda: failed(application)[0] == 2 and failed(application)[-1] == 1250
        )
        application.execute("DELETE FROM docs WHERE id = 1250")
        until("a deleted one leaves", lambda: failed(application)[-1] == 1200)
        wait_fresh(worker)
        assert worker.keepers[0].pipeline is pipeline, "no pipeline failed over it"
    assert_told_of(settings, encoder, count(application, "docs"), message)


def assert_only_row_3_failed(application: Connection, message: str) -> None:
    found = application.execute("SELECT id, encode_error FROM docs_embedding WHERE encode_error IS NOT NULL")
    ((row, error),) = found
    assert row == 3
    assert message in error
    assert count(application, "docs_embedding WHERE encode_error IS NULL") == 9


@pytest.mark.parametrize("either_url", ["18", "16"], indirect=True)
def test_a_text_beyond_what_postgres_gives_at_once(either_url: str, app: Connection) -> None:
    app.execute("CREATE TABLE docs (id int PRIMARY KEY, body text)")
    app.execute("INSERT INTO docs SELECT g, repeat('x', 5400) FROM generate_series(1, 10) g")
    longest = "CASE WHEN id = 3 THEN quote_literal(repeat(body, 100000)) ELSE body END"
    backfill(settings_for(either_url, sync_of("docs", expression=longest)), NullEncoder())
    assert_only_row_3_failed(app, "invalid memory alloc request size")


def test_a_value_that_is_damaged_where_it_lies(url15: str) -> None:
    with psycopg.connect(url15, autocommit=True) as application:
        application.execute("CREATE EXTENSION pg_surgery; CREATE TABLE docs (id int PRIMARY KEY, body text)")
        application.execute("ALTER TABLE docs ALTER body SET STORAGE EXTERNAL")
        application.execute("INSERT INTO docs SELECT g, repeat('x', 3000) FROM generate_series(1, 10) g")
        kept = "SELECT reltoastrelid::regclass::text FROM pg_class WHERE oid = 'docs'::regclass"
        ((toast,),) = application.execute(kept)
        third = f"(SELECT chunk_id FROM {toast} ORDER BY 1 OFFSET 4 LIMIT 1)"  # each has two parts
        parts = f"SELECT array_agg(ctid)::text FROM {toast} WHERE chunk_id = {third}"
        ((places,),) = application.execute(parts.encode())
        application.execute("SELECT heap_force_kill(%s::regclass, %s::tid[])", (toast, places))
        backfill(settings_for(url15, sync_of("docs", target={"type": "real[]"})), NullEncoder())
        assert_only_row_3_failed(application, "missing chunk number 0 for toast value")


def test_verify_finds_what_is_wrong_beside_rows_that_cannot_be_read(url: str, docs: Connection) -> None:
    docs.execute("INSERT INTO docs SELECT g, '1' FROM generate_series(1, 100) g")
    settings, encoder = settings_for(url, sync_of("docs", expression="(1 / body::int)::text")), NullEncoder()
    backfill(settings, encoder)
    docs.execute("ALTER TABLE docs DISABLE TRIGGER USER")
    docs.execute(
        "UPDATE docs SET body = '0' WHERE id IN (1, 50, 51, 100); UPDATE docs SET body = '-1' WHERE id = 52"
    )
    docs.execute("INSERT INTO docs VALUES (101, '1')")
    with connect(settings.database.url, "test") as connection:
        report = verify(connection, bound_sync(connection, settings, encoder))
    assert dict(report.problems) == {"failed": 4, "different": 1, "missing": 1}
    assert report.rows == 101


def test_rows_enter_and_leave_where(url: str, application: Connection) -> None:
    """At rest the target holds exactly the rows that `where` selects: 1% of 100,000."""
    application.execute("CREATE TABLE docs (id int PRIMARY KEY, body text, live boolean)")
    application.execute(
        "INSERT INTO docs SELECT g, 'text ' || g, g % 100 = 0 FROM generate_series(1, 100000) g"
    )
    differ = (
        "docs FULL JOIN docs_embedding t USING (id) WHERE coalesce(live, false) <> (t.embedding IS NOT NULL)"
    )
    settings = settings_for(url, sync_of("docs", where="live"), sweep_seconds=600)
    encoder = NullEncoder()
    with running(settings, encoder) as worker:
        wait_fresh(worker)
        assert count(application, "docs_embedding") == 1000
        assert count(application, differ) == 0
        for change in (
            "UPDATE docs SET live = NOT live WHERE id IN (5, 100)",
            "UPDATE docs SET live = id % 100 = 1 WHERE id % 100 < 2",
            "UPDATE docs SET live = NULL WHERE id < 300",
            "UPDATE docs SET body = 'other' WHERE id IN (401, 402)",
            "DELETE FROM docs WHERE id = 501",
        ):
            application.execute(change)
            until(change, lambda: count(application, "freshvec.queue_docs") == 0)
            wait_fresh(worker)
            assert count(application, differ) == 0
            until(
                "no tombstone stays",
                lambda: count(application, "docs_embedding WHERE embedding IS NULL") == 0,
            )
        selected = count(application, "docs WHERE live")
        assert 990 < selected < 1000
        assert count(application, "docs_embedding") == selected
        other = application.execute("SELECT content_hash FROM docs_embedding WHERE id = 401").fetchall()
        assert other == [(content_hash("other"),)]


LONG = 800_000


@pytest.mark.parametrize("version", ["18", "16"])
def test_a_read_is_bounded_in_characters(version: str, request: pytest.FixtureRequest) -> None:
    """Of keys whose texts are too long to be held together a prefix is answered, in the order asked."""
    url: str = request.getfixturevalue("url" if version == "18" else "url16")
    with psycopg.connect(url, autocommit=True) as application:
        application.execute("CREATE TABLE docs (id int PRIMARY KEY, body text)")
        application.execute(
            "INSERT INTO docs SELECT g, repeat('x', %s) || g FROM generate_series(1, 60) g", (LONG,)
        )
        settings, encoder = settings_for(url, sync_of("docs")), NullEncoder(max_tokens=8192)
        with connect(settings.database.url, "test") as connection:
            bound = bound_sync(connection, settings, encoder)
        settings = settings_for(url, sync_of("docs"), page_rows=1000)
        with connect(settings.database.url, "test") as connection:
            migrate(connection)
            bound, _ = apply(connection, settings.sync[0], bound.model)
            reader = RowReader(connection, bound)
            keys = [(str(key),) for key in (60, 999, *range(59, 0, -1))]
            answered: list[str | None] = []
            while len(answered) < len(keys):
                found = reader.read(keys[len(answered) :])
                assert found
                assert sum(len(row.text or "") for row in found if row) < rows.MOST_CHARACTERS + LONG + 2
                answered += [row.key[0] if row else None for row in found]
    assert answered == ["60", None, *(str(key) for key in range(59, 0, -1))]


MEMORY = """
import resource, sys
from freshvec.worker.worker import Worker
from tests.support import NullEncoder, count, running, settings_for, sync_of, until, wait_fresh
import psycopg
url = sys.argv[1]
settings = settings_for(url, sync_of("docs", target={"type": "real[]"}), page_rows=8192, sweep_seconds=600)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
with psycopg.connect(url, autocommit=True) as application:
    with running(settings, NullEncoder(max_tokens=8192)) as worker:
        before = peak()
        wait_fresh(worker, 240)
        walked = peak()
        application.execute("UPDATE docs SET body = body || '.'")
        until("queued", lambda: count(application, "freshvec.queue_docs") == 0, 240)
        wait_fresh(worker, 240)
        bulk = peak()
        for first in range(1, 120, 12):
            change = "UPDATE docs SET body = body || '!' WHERE id BETWEEN %s AND %s"
            application.execute(change, (first, first + 11))
        until("live", lambda: count(application, "freshvec.queue_docs") == 0, 240)
        wait_fresh(worker, 240)
        print(before, walked, bulk, peak())
"""


def test_megabytes_of_texts_do_not_fill_the_memory(url: str, docs: Connection) -> None:
    """120 MB of texts by one page, one bulk change, and live changes: a few of them at a time are held."""
    docs.execute("ALTER TABLE docs ALTER body SET STORAGE EXTERNAL")
    docs.execute("INSERT INTO docs SELECT g, g || repeat(md5(g::text), 31250) FROM generate_series(1, 120) g")
    done = subprocess.run([sys.executable, "-c", MEMORY, url], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, walked, bulk, live = json.loads(f"[{done.stdout.strip().replace(' ', ',')}]")
    assert count(docs, "docs_embedded") == 120
    assert max(walked, bulk, live) - before < 90, f"MiB at first, walked, bulk, live: {done.stdout}"
