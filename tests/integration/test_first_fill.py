"""The first walk fills the target by COPY, and gives way where rows are there already."""

from typing import Any

import pytest

from freshvec.db import connect
from freshvec.target.fill import can_fill
from tests.integration.stepwise import HeldEncoder
from tests.staleness import stale
from tests.support import (
    Connection,
    NullEncoder,
    backfill,
    bound_sync,
    count,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
)

KEYS = {
    "smallint": "g::smallint",
    "integer": "g::int",
    "bigint": "-g::bigint * 1000000000",
    "uuid": "lpad(g::text, 32, '0')::uuid",
    "text": "'schlüssel ' || g",
    "varchar(20)": "'key ' || g",
}


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("vectors", ["vector", "halfvec"])
def test_every_row_is_there_and_is_found_fresh(application: Connection, kind: str, vectors: str) -> None:
    application.execute(f"CREATE TABLE docs (id {kind} PRIMARY KEY, body text)".encode())
    application.execute(
        f"INSERT INTO docs SELECT {KEYS[kind]}, 'text ' || g FROM generate_series(1, 300) g".encode()
    )
    settings = settings_for(application.info.dsn, sync_of("docs", target={"type": vectors}))
    encoder = NullEncoder()
    backfill(settings, encoder)
    assert stale(application, encoder) == []
    assert count(application, "docs_embedded") == 300
    assert application.execute("SELECT rows_embedded FROM freshvec.sync").fetchone() == (300,)
    before = encoder.encoded
    backfill(settings, encoder)
    assert encoder.encoded == before, "hashes and fingerprints are as an upsert's"


def test_a_composite_key(application: Connection) -> None:
    application.execute("CREATE TABLE docs (a text, id int, body text, PRIMARY KEY (a, id))")
    application.execute(
        "INSERT INTO docs SELECT 'a' || g % 7, g, 'text ' || g FROM generate_series(1, 300) g"
    )
    encoder = NullEncoder()
    backfill(settings_for(application.info.dsn, sync_of("docs")), encoder)
    assert stale(application, encoder) == []


def test_what_is_changed_meanwhile_is_right(docs: Connection) -> None:
    """Its row is there when the page is written, or is gone, or has no text any more."""
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 400) g")
    encoder = HeldEncoder()
    settings = settings_for(docs.info.dsn, sync_of("docs"), page_rows=100)
    with encoder.holding(), running(settings, encoder) as worker:
        until("a page is with the encoder", encoder.is_held.is_set)
        docs.execute("UPDATE docs SET body = 'changed' WHERE id % 10 = 0")
        docs.execute("UPDATE docs SET body = NULL WHERE id % 10 = 1")
        docs.execute("DELETE FROM docs WHERE id % 10 = 2")
        encoder.free()
        wait_fresh(worker)
    assert stale(docs, NullEncoder()) == []
    (embedded,) = docs.execute("SELECT rows_embedded FROM freshvec.sync").fetchone() or (0,)
    assert embedded == count(docs, "docs_embedding") == 320


def test_a_walk_that_begins_again_over_rows_that_are_there(docs: Connection) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 400) g")
    settings = settings_for(docs.info.dsn, sync_of("docs"), page_rows=50)
    backfill(settings, NullEncoder())
    docs.execute("UPDATE freshvec.sync SET proven_at = NULL, backfill_done = false, backfill_after = NULL")
    docs.execute("DELETE FROM docs_embedding WHERE id % 3 = 0")
    backfill(settings, NullEncoder())
    assert stale(docs, NullEncoder()) == []


@pytest.mark.parametrize(
    ("more", "can"),
    [
        ({}, True),
        ({"target": {"type": "real[]"}}, False),
        ({"target": {"column": "embedding"}}, False),
        ({"chunk": {"tokens": 50}}, False),
    ],
)
def test_which_targets_are_filled(docs: Connection, more: dict[str, Any], can: bool) -> None:
    settings = settings_for(docs.info.dsn, sync_of("docs", **more))
    with connect(settings.database.url, "test") as connection:
        assert can_fill(bound_sync(connection, settings, NullEncoder())) == can


def test_keys_of_other_types_go_the_other_way(application: Connection) -> None:
    application.execute("CREATE TABLE docs (id numeric PRIMARY KEY, body text)")
    application.execute("INSERT INTO docs VALUES (1.5, 'text')")
    settings = settings_for(application.info.dsn, sync_of("docs"))
    backfill(settings, NullEncoder())
    assert stale(application, NullEncoder()) == []
    with connect(settings.database.url, "test") as connection:
        assert not can_fill(bound_sync(connection, settings, NullEncoder()))
