"""The application's own DDL goes through while a worker runs, and is followed or said."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from freshvec.worker.worker import Worker
from tests.staleness import EVERY_ROW, EVERY_ROW_CUT, stale
from tests.support import (
    Connection,
    NullEncoder,
    count,
    exists,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
)

ENCODER = NullEncoder()


def url_of(app: Connection) -> str:
    return f"postgresql://postgres:@/{app.info.dbname}?host={app.info.host}"


@pytest.fixture(params=["18", "16"])
def app(request: pytest.FixtureRequest) -> Iterator[Connection]:
    url: str = request.getfixturevalue("url" if request.param == "18" else "url16")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE docs (id int PRIMARY KEY, body text, extra text)")
        connection.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 50) g")
        yield connection


@pytest.fixture
def live(app: Connection) -> Iterator[Worker]:
    settings = settings_for(url_of(app), sync_of("docs"), sweep_seconds=0.3)
    with running(settings, ENCODER) as worker:
        wait_fresh(worker)
        yield worker


def fresh(app: Connection, rows: int) -> None:
    until("every row is fresh", lambda: count(app, "docs_embedding") == rows and not stale(app, ENCODER))


def trouble(app: Connection) -> str:
    return str((app.execute("SELECT coalesce(last_error, '') FROM freshvec.status").fetchone() or ("",))[0])


def test_a_table_is_dropped_and_made_again(app: Connection, live: Worker) -> None:
    app.execute("DROP TABLE docs")
    assert not exists(app, "docs")
    until("it is said", lambda: "no such table" in trouble(app))
    app.execute("CREATE TABLE docs (id int PRIMARY KEY, body text)")
    app.execute("INSERT INTO docs VALUES (1, 'again'), (7, 'new')")
    fresh(app, 2)


def test_a_key_is_widened(app: Connection, live: Worker) -> None:
    app.execute("ALTER TABLE docs ALTER id TYPE bigint")
    app.execute("INSERT INTO docs VALUES (5000000000, 'beyond an int')")
    fresh(app, 51)


@pytest.mark.parametrize(
    ("more", "lost"), [({}, "docs_embedding"), ({"chunk": {"tokens": 16, "overlap": 4}}, "docs_chunk")]
)
def test_pgvector_is_dropped_with_all_vectors_and_comes_back(
    app: Connection, more: dict[str, Any], lost: str
) -> None:
    """Whatever the error says helps."""
    settings = settings_for(url_of(app), sync_of("docs", **more), sweep_seconds=0.3)
    remedy = f'DROP TABLE "public"."{lost}" CASCADE;'
    with running(settings, ENCODER) as worker:
        wait_fresh(worker)
        app.execute("DROP EXTENSION vector CASCADE")
        app.execute("UPDATE docs SET body = 'meanwhile' WHERE id = 1")
        app.execute("CREATE EXTENSION vector")
        until("it is said", lambda: remedy in trouble(app))
        app.execute(remedy.encode())
        until("all is there again", lambda: exists(app, lost) and count(app, f"public.{lost}") == 50)
        wait_fresh(worker)
        assert not stale(app, ENCODER, EVERY_ROW_CUT if more else EVERY_ROW)


def test_a_watched_column_is_dropped_and_comes_back(app: Connection, live: Worker) -> None:
    app.execute("ALTER TABLE docs DROP COLUMN body")
    app.execute("INSERT INTO docs VALUES (100)")
    until("it is said", lambda: "body" in trouble(app))
    app.execute("ALTER TABLE docs ADD COLUMN body text DEFAULT 'back'")
    fresh(app, 51)


def test_a_restore_that_cleans_goes_through(app: Connection, live: Worker) -> None:
    app.execute("ALTER TABLE docs DROP CONSTRAINT docs_pkey")
    app.execute("DROP TABLE docs")
    app.execute("CREATE TABLE docs (id int NOT NULL, body text)")
    with app.cursor().copy("COPY docs FROM STDIN") as copy:
        for number in range(20):
            copy.write_row((number, f"restored {number}"))
    app.execute("ALTER TABLE docs ADD CONSTRAINT docs_pkey PRIMARY KEY (id)")
    fresh(app, 20)


def test_a_schema_is_dropped_without_cascade(app: Connection) -> None:
    app.execute("CREATE SCHEMA shop")
    app.execute("CREATE TABLE shop.docs (id int PRIMARY KEY, body text)")
    sync = sync_of("shop.docs", target={"table": "public.kept"})
    with running(settings_for(url_of(app), sync, sweep_seconds=0.3), ENCODER) as worker:
        wait_fresh(worker)
        app.execute("DROP TABLE shop.docs")
        app.execute("DROP SCHEMA shop")
        until("it is said", lambda: "no such table" in trouble(app))
