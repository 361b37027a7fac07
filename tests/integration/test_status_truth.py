"""Status never says fresh of what is stale by anything it knows."""

import pytest

from freshvec.db import connect
from freshvec.health.declared import amiss
from freshvec.health.status import is_fresh, look, read
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
        {"target": {"type": "halfvec"}},
        {"model": "bge-small-en-v1.5"},
        {"table": "other", "target": {"table": "docs_embedding"}},
        {"table": "app.docs", "target": {"table": "public.docs_embedding"}},
    ],
)
def test_rows_of_another_definition_are_stale(
    url: str, docs: Connection, declared: dict[str, object]
) -> None:
    docs.execute("INSERT INTO docs VALUES (1, 'one'), (2, 'two')")
    settings = settings_for(url, sync_of("docs"))
    with connect(settings.database.url, "test") as connection:
        assert amiss(connection, settings.sync)["docs"].state == "not applied"
        backfill(settings, NullEncoder())
        seen = look(connection, settings.sync)
        assert (seen.amiss, seen.is_within(None, None)) == ({}, True)
        otherwise = settings_for(url, {**sync_of("docs"), **declared})
        seen = look(connection, otherwise.sync)
        (row,) = seen.as_values()
        assert (row["state"], row["coverage"], row["backlog"]) == ("not as declared", 0, 2)
        assert "run `freshvec apply docs`" in row["amiss"]
        assert not seen.is_within(None, 0.5)


def test_rows_of_another_export_of_the_model_are_stale(url: str, docs: Connection) -> None:
    settings = settings_for(url, sync_of("docs"))
    backfill(settings, NullEncoder())
    with connect(settings.database.url, "test") as connection:
        for fingerprint, state in ((NullEncoder.fingerprint.hex(), []), ("00" * 16, ["not as declared"])):
            found = amiss(connection, settings.sync, {"docs": fingerprint})
            assert [each.state for each in found.values()] == state


def test_what_was_never_applied_is_in_the_document(url: str, docs: Connection) -> None:
    settings = settings_for(url, sync_of("docs"), sync_of("docs", "another", target={"table": "elsewhere"}))
    backfill(settings_for(url, sync_of("docs")), NullEncoder())
    with connect(settings.database.url, "test") as connection:
        seen = look(connection, settings.sync)
    states = {row["sync"]: (row["state"], row["coverage"]) for row in seen.as_values()}
    assert states == {"another": ("not applied", 0.0), "docs": ("no worker", 1.0)}
    assert not seen.is_within(3600, 0)


@pytest.mark.parametrize(
    ("what", "state", "message"),
    [
        ("DROP TABLE docs CASCADE", "table missing", "its table public.docs is not there: name another"),
        ("ALTER TABLE docs RENAME TO gone", "table missing", "the one that was kept is now public.gone"),
        (
            "ALTER TABLE docs RENAME TO old; CREATE TABLE docs (id bigint PRIMARY KEY, body text)",
            "another table",
            "public.docs is another table than the one that was kept",
        ),
        ("DROP TABLE docs_embedding CASCADE", "target missing", "its target public.docs_embedding"),
    ],
)
def test_a_table_that_is_missing_is_named(
    url: str, docs: Connection, what: str, state: str, message: str
) -> None:
    settings = settings_for(url, sync_of("docs"))
    backfill(settings, NullEncoder())
    with connect(settings.database.url, "test") as connection:
        docs.execute(what.encode())
        (row,) = look(connection, settings.sync).as_values()
    assert (row["state"], row["coverage"]) == (state, 0)
    assert message in row["amiss"]
