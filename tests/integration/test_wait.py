"""Whether a row is fresh, and waiting until it is: `freshvec.is_fresh` and `freshvec wait`."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from freshvec.db import connect
from freshvec.errors import DatabaseError, SchemaError
from freshvec.health.wait import wait_until_fresh
from tests.acceptance.programs import KINDS, LABELS, Kind
from tests.integration.at_rest import Kept
from tests.support import (
    DOCS_SYNC,
    Connection,
    NullEncoder,
    backfill,
    config_toml,
    count,
    freshvec,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
    write_config,
)


def is_fresh(app: Connection, *key: object, sync: str = "docs") -> bool:
    parts = [str(part) for part in key]
    (fresh,) = app.execute("SELECT freshvec.is_fresh(%s, VARIADIC %s::text[])", (sync, parts)).fetchone() or (
        None,
    )
    assert isinstance(fresh, bool)
    return fresh


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_row_is_fresh_once_its_change_is_written(url: str, application: Connection, kind: Kind) -> None:
    labels = ", ".join(f"'label {number}'" for number in range(LABELS))
    application.execute(f"CREATE SCHEMA app; CREATE TYPE app.label AS ENUM ({labels})")
    columns = ", ".join(kind.columns)
    application.execute(f"CREATE TABLE docs ({columns}, body text, PRIMARY KEY ({kind.names}))")
    application.execute(f"INSERT INTO docs VALUES ({kind.key(1)}, 'one'), ({kind.key(2)}, 'two')")
    backfill(settings_for(url, sync_of("docs")), NullEncoder())
    names = kind.names.split(", ")
    texts = ", ".join(f"{name}::text" for name in names)
    first, second = (
        application.execute(f"SELECT {texts} FROM docs WHERE {kind.is_row(number)}").fetchone() or ()
        for number in (1, 2)
    )
    assert is_fresh(application, *first)
    application.execute(f"UPDATE docs SET body = 'edited' WHERE {kind.is_row(1)}")
    assert not is_fresh(application, *first)
    assert is_fresh(application, *second), "the other row was not changed"
    with running(settings_for(url, sync_of("docs")), NullEncoder()) as worker:
        wait_fresh(worker)
    assert is_fresh(application, *first)


def test_equal_keys_of_other_spellings_are_one(url: str, application: Connection) -> None:
    application.execute("CREATE TABLE docs (id numeric PRIMARY KEY, body text)")
    application.execute("INSERT INTO docs VALUES (1.00, 'one')")
    backfill(settings_for(url, sync_of("docs")), NullEncoder())
    application.execute("UPDATE docs SET body = 'edited'")
    assert not is_fresh(application, "1.0")
    assert not is_fresh(application, "1")


def test_what_an_open_transaction_has_changed_is_not_fresh_to_it(kept: Kept) -> None:
    with kept.running():
        with psycopg.connect(kept.url) as session:
            session.execute("UPDATE docs SET body = 'edited' WHERE id = 1")
            assert not is_fresh(session, 1)
            assert is_fresh(kept.app, 1), "to others it is not changed yet"
        until("it is fresh", lambda: is_fresh(kept.app, 1))


def test_a_row_that_is_not_there_or_has_no_text_has_nothing_stale(kept: Kept) -> None:
    with kept.running():
        kept.app.execute("DELETE FROM docs WHERE id = 1")
        assert is_fresh(kept.app, 1)
        assert is_fresh(kept.app, 4711)
        kept.app.execute("UPDATE docs SET body = NULL WHERE id = 2")
        until("the emptied row is fresh", lambda: is_fresh(kept.app, 2))
        assert count(kept.app, "docs_embedded WHERE id = 2") == 0


def test_a_row_that_cannot_be_encoded_is_not_fresh(kept: Kept) -> None:
    kept.encoder.refuse = "bad"
    with kept.running():
        kept.app.execute("UPDATE docs SET body = 'a bad one' WHERE id = 1")
        failed = "docs_embedding WHERE encode_error IS NOT NULL"
        until("its error is kept", lambda: count(kept.app, failed) == 1)
        assert not is_fresh(kept.app, 1)
        assert not is_fresh(kept.app), "nor is the whole sync"
        kept.app.execute("UPDATE docs SET body = 'a good one' WHERE id = 1")
        until("it is fresh", lambda: is_fresh(kept.app, 1) and is_fresh(kept.app))


@pytest.mark.parametrize(
    "what",
    [
        "SELECT freshvec.ask_for_walk('docs', 'a change was missed')",
        "UPDATE freshvec.sync SET backfill_done = false, walk_fence = 1000000",
        "UPDATE freshvec.sync SET trouble = 'changes may be missed'",
        "UPDATE docs_embedding SET fingerprint = 'another model'",
        "ALTER TABLE docs RENAME TO old; CREATE TABLE docs AS TABLE old",
    ],
)
def test_what_may_be_stale_is_not_fresh(kept: Kept, what: str) -> None:
    with kept.running():
        pass
    assert is_fresh(kept.app, 1)
    assert is_fresh(kept.app)
    kept.app.execute(what)
    assert not is_fresh(kept.app, 1)
    if "docs_embedding" not in what:
        assert not is_fresh(kept.app)


def test_a_row_written_while_the_table_is_walked_is_fresh_before_the_walk_ends(
    url: str, docs: Connection
) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 5000) g")
    with running(settings_for(url, sync_of("docs"), batch_tokens=64), NullEncoder(0.05)):
        until("the walk has begun", lambda: count(docs, "pg_class WHERE relname = 'docs_embedding'"))
        until("a page is read", lambda: count(docs, "docs_embedding"))
        assert not is_fresh(docs, 4999)
        docs.execute("UPDATE docs SET body = 'urgent' WHERE id = 4999")
        until("it is fresh", lambda: is_fresh(docs, 4999))
        assert not is_fresh(docs), "the walk has ended before"
        assert count(docs, "docs_embedding") < 4500


def test_an_older_definitions_vectors_are_not_fresh(kept: Kept) -> None:
    with kept.running():
        pass
    kept.sync = sync_of("docs", columns=["id", "body"])
    halted = threading.Event()

    class Halting(NullEncoder):
        def encode(self, batch):  # type: ignore[no-untyped-def]
            halted.wait(20)
            return super().encode(batch)

    kept.encoder = Halting()
    with running(kept.settings, kept.encoder):
        until("it is defined anew", lambda: count(kept.app, "freshvec.sync WHERE NOT backfill_done"))
        assert not is_fresh(kept.app, 1)
        halted.set()
        until("it is fresh", lambda: is_fresh(kept.app, 1) and is_fresh(kept.app))


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ("'nowhere', '1'", psycopg.errors.UndefinedObject, "no sync 'nowhere'"),
        ("'docs', '1', '2'", psycopg.errors.InvalidParameterValue, "has 1 columns"),
        ("'docs', NULL", psycopg.errors.InvalidParameterValue, "has 1 columns"),
        ("'docs', 'one'", psycopg.errors.InvalidTextRepresentation, "invalid input syntax"),
    ],
)
def test_what_cannot_be_asked(kept: Kept, asked: str, error: type[psycopg.Error], words: str) -> None:
    with kept.running():
        pass
    with pytest.raises(error, match=words):
        kept.app.execute(f"SELECT freshvec.is_fresh({asked})")


@pytest.fixture
def roles(kept: Kept) -> Iterator[Kept]:
    kept.app.execute("CREATE ROLE reads LOGIN; CREATE ROLE reads_not LOGIN; GRANT SELECT ON docs TO reads")
    with kept.running():
        pass
    kept.app.execute("GRANT USAGE ON SCHEMA freshvec TO reads, reads_not")
    yield kept
    kept.app.execute("DROP OWNED BY reads, reads_not; DROP ROLE reads, reads_not")


def as_role(kept: Kept, role: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(kept.url.replace("postgres:@", f"{role}:@"), autocommit=True)


def test_who_may_read_the_source_may_ask(roles: Kept) -> None:
    with as_role(roles, "reads") as session:
        assert is_fresh(session, 1)
        roles.app.execute("UPDATE docs SET body = 'edited' WHERE id = 1")
        assert not is_fresh(session, 1)
        assert not is_fresh(session)
        for hidden in ("freshvec.queue_docs", "freshvec.sync"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(f"SELECT FROM {hidden}")
    with as_role(roles, "reads_not") as session:
        for asked in (
            "freshvec.is_fresh('docs', '1')",
            "freshvec.is_fresh('docs')",
            "freshvec.answered_docs(1, '1')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(f"SELECT {asked}")


def test_who_may_read_the_source_no_more_may_not_ask(roles: Kept) -> None:
    roles.app.execute("REVOKE SELECT ON docs FROM reads")
    with roles.running(), as_role(roles, "reads") as session:
        for asked in ("freshvec.is_fresh('docs')", "freshvec.answered_docs(1, '1')"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(f"SELECT {asked}")


def test_nothing_is_learnt_of_a_row_that_a_policy_hides(roles: Kept) -> None:
    roles.app.execute("CREATE POLICY few ON docs TO reads USING (id <= 10)")
    roles.app.execute("ALTER TABLE docs ENABLE ROW LEVEL SECURITY")
    with roles.running():
        pass
    roles.app.execute("UPDATE docs SET body = 'edited' WHERE id IN (1, 20)")
    with as_role(roles, "reads") as session:
        assert not is_fresh(session, 1)
        assert is_fresh(session, 20), "for this role there is no such row"
    assert not is_fresh(roles.app, 20)


def test_it_follows_a_key_of_another_type(kept: Kept) -> None:
    with kept.running():
        pass
    kept.app.execute("ALTER TABLE docs ALTER id TYPE bigint")
    with kept.running():
        kept.app.execute("UPDATE docs SET id = 5000000000 WHERE id = 1")
        until("it is fresh", lambda: is_fresh(kept.app, 5000000000))


def test_waiting_ends_with_the_write(kept: Kept) -> None:
    with kept.running(), connect(kept.settings.database.url, "test") as connection:
        kept.app.execute("UPDATE docs SET body = 'edited' WHERE id = 1")
        assert wait_until_fresh(connection, "docs", ["1"], 20)
        assert count(kept.app, "freshvec.queue_docs") == 0
        kept.app.execute("UPDATE docs SET body = body || ' again'")
        assert wait_until_fresh(connection, "docs", [], 20)
        assert count(kept.app, "freshvec.queue_docs") == 0


def test_later_changes_are_not_waited_for(kept: Kept) -> None:
    with kept.running():
        pass
    kept.app.execute("UPDATE docs SET body = 'edited' WHERE id = 1")
    asking = "pg_stat_activity WHERE query LIKE '%is_fresh_up_to%' AND application_name = 'freshvec test'"
    with connect(kept.settings.database.url, "test") as connection, ThreadPoolExecutor() as threads:
        waiting = threads.submit(wait_until_fresh, connection, "docs", ["1"], 20)
        until("it waits", lambda: count(kept.app, asking))
        with kept.app.transaction():
            kept.app.execute("UPDATE docs SET body = 'edited later' WHERE id = 1")
            kept.app.execute("DELETE FROM freshvec.queue_docs WHERE xid <> pg_current_xact_id()")
        assert waiting.result()
    assert not is_fresh(kept.app, 1)


def test_waiting_for_what_is_none(kept: Kept) -> None:
    with connect(kept.settings.database.url, "test") as connection:
        with pytest.raises(SchemaError, match="never applied"):
            wait_until_fresh(connection, "docs", ["1"], 1)
        with kept.running():
            pass
        with pytest.raises(DatabaseError, match="invalid input syntax"):
            wait_until_fresh(connection, "docs", ["one"], 1)


def test_the_command(url: str, docs: Connection, tmp_path: Path) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 5) g")
    config = str(write_config(tmp_path / "freshvec.toml", config_toml(url, tmp_path, DOCS_SYNC)))
    settings = settings_for(url, sync_of("docs"))
    backfill(settings, NullEncoder())
    docs.execute("UPDATE docs SET body = 'edited' WHERE id = 1")
    for key in ((), ("--key", "1")):
        late = freshvec("wait", "--sync", "docs", *key, "--timeout", "0.2", "--config", config)
        assert late.returncode == 3, late.stderr
        assert "not fresh after 0.2 s; no worker runs. See `freshvec status`" in late.stderr
    assert freshvec("wait", "--key", "2", "--config", config).returncode == 0, "no change of it waits"
    with running(settings, NullEncoder()):
        for key in ((), ("--key", "1")):
            done = freshvec("wait", *key, "--config", config)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert freshvec("wait", "--sync", "other", "--config", config).returncode == 2
    other = DOCS_SYNC.replace('columns = ["body"]', 'columns = ["id", "body"]')
    config = str(write_config(tmp_path / "other.toml", config_toml(url, tmp_path, other)))
    for key in ((), ("--key", "2")):
        done = freshvec("wait", *key, "--timeout", "0.2", "--config", config)
        assert done.returncode == 3, "what is fresh is of another definition"
        assert "declared otherwise than applied: run `freshvec apply docs`" in done.stderr
