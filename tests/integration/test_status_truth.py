"""Status never says fresh of what is stale by anything it knows."""

import pytest

from freshvec.db import connect
from freshvec.health.status import is_fresh, read, unapplied
from tests.support import Connection, NullEncoder, backfill, settings_for, sync_of


@pytest.mark.parametrize(
    "what",
    [
        "ALTER TABLE docs RENAME TO gone",
        "DROP TABLE docs CASCADE",
        "DROP TABLE docs_embedding CASCADE",
        "DROP TABLE freshvec.queue_docs CASCADE",
        "ALTER TABLE docs RENAME TO old; CREATE TABLE docs (id bigint PRIMARY KEY, body text)",
        "UPDATE freshvec.sync SET backfill_done = false",
        "UPDATE freshvec.sync SET trouble = 'this worker may not mend it'",
        "UPDATE freshvec.sync SET rows_failed = 1",
        "SELECT freshvec.ask_for_walk('docs', 'a change was missed')",
        "UPDATE docs SET body = 'two'",
    ],
)
def test_it_is_not_fresh_after(url: str, docs: Connection, what: str) -> None:
    docs.execute("INSERT INTO docs VALUES (1, 'one')")
    settings = settings_for(url, sync_of("docs"))
    backfill(settings, NullEncoder())
    with connect(settings.database.url, "test") as connection:
        (row,) = read(connection)
        assert is_fresh(row)
        docs.execute(what)
        (row,) = read(connection)
        assert not is_fresh(row), row


@pytest.mark.parametrize(
    "declared",
    [
        {"columns": ["body", "id"]},
        {"where": "id > 0"},
        {"target": {"table": "elsewhere"}},
        {"model": "bge-small-en-v1.5"},
        {"name": "another"},
    ],
)
def test_what_is_declared_otherwise_than_applied_is_named(
    url: str, docs: Connection, declared: dict[str, object]
) -> None:
    settings = settings_for(url, sync_of("docs"))
    with connect(settings.database.url, "test") as connection:
        assert list(unapplied(connection, settings.sync)) == ["docs"]
        backfill(settings, NullEncoder())
        assert unapplied(connection, settings.sync) == {}
        otherwise = settings_for(url, {**sync_of("docs"), **declared})
        assert list(unapplied(connection, otherwise.sync)) == [declared.get("name", "docs")]
