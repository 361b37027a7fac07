"""What docs/operations.md and docs/troubleshooting.md promise of dumps, models, replicas, removal."""

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from freshvec.db import connect
from freshvec.embedded import EmbeddedPostgres
from freshvec.errors import SchemaError
from freshvec.schema.apply import remove
from tests.standby import Standby, server_with_docs
from tests.support import (
    REPOSITORY,
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

ROWS = 50


@pytest.fixture
def filled(url: str, docs: Connection) -> Connection:
    """A table whose rows are all fresh; no worker runs."""
    docs.execute("INSERT INTO docs SELECT n, 'text ' || n FROM generate_series(1, %s) AS n", (ROWS,))
    backfill(settings_for(url, sync_of("docs")), NullEncoder())
    return docs


@pytest.fixture
def restored(server18: EmbeddedPostgres, application: Connection) -> Iterator[str]:
    """The URL of an empty database beside the test's."""
    name = f"{application.info.dbname}_restored"
    application.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    yield server18.url(name)
    application.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize(("left_out", "encoded"), [("", 2), ("--exclude-table-data=*_embedding", ROWS)])
def test_a_dump_keeps_the_vectors(
    server18: EmbeddedPostgres, filled: Connection, url: str, restored: str, left_out: str, encoded: int
) -> None:
    archive = str(server18.data.parent / f"{filled.info.dbname}.dump")
    filled.execute("UPDATE docs SET body = 'queued as the dump is made' WHERE id = 1")
    server18.run("pg_dump", "--format=custom", f"--file={archive}", *filter(None, [left_out]), url)
    server18.run("pg_restore", "--exit-on-error", f"--dbname={restored}", archive)
    Path(archive).unlink()
    with psycopg.connect(restored, autocommit=True) as there:
        there.execute("UPDATE docs SET body = 'edited before a worker came' WHERE id = 2")
        encoder = NullEncoder()
        backfill(settings_for(restored, sync_of("docs")), encoder)
        assert encoder.encoded == encoded
        with running(settings_for(restored, sync_of("docs")), NullEncoder()) as worker:
            there.execute("INSERT INTO docs VALUES (1000, 'live'); DELETE FROM docs WHERE id = 3")
            until("live changes arrive", lambda: count(there, "docs_embedded WHERE id = 1000") == 1)
            wait_fresh(worker)
            assert count(there, "docs_embedding") == ROWS


def test_a_schema_that_was_copied_without_rows(
    server18: EmbeddedPostgres, filled: Connection, url: str, restored: str
) -> None:
    """Nothing fails there, and who begins there is told what helps."""
    script = str(server18.data.parent / f"{filled.info.dbname}.sql")
    server18.run("pg_dump", "--format=custom", "--schema-only", f"--file={script}", url)
    server18.run("pg_restore", "--exit-on-error", f"--dbname={restored}", script)
    Path(script).unlink()
    settings = settings_for(restored, sync_of("docs"))
    with psycopg.connect(restored, autocommit=True) as there:
        there.execute("INSERT INTO docs VALUES (1, 'a'), (2, 'b'); DELETE FROM docs WHERE id = 2")
        with pytest.raises(SchemaError, match=r"copied without their rows.*DROP SCHEMA freshvec CASCADE"):
            backfill(settings, NullEncoder())
        there.execute("DROP SCHEMA freshvec CASCADE")
        backfill(settings, NullEncoder())
        assert count(there, "docs_embedded") == 1


def test_another_model_beside_the_first(url: str, filled: Connection) -> None:
    second = sync_of("docs", name="docs_2", target={"table": "docs_2", "type": "halfvec"})
    both = settings_for(url, sync_of("docs"), second)
    with running(both, NullEncoder()) as worker:
        wait_fresh(worker)
        filled.execute("UPDATE docs SET body = 'edited' WHERE id = 1")
        wait_fresh(worker)
        assert count(filled, "docs_embedded") == count(filled, "docs_2_embedded") == ROWS
    with running(settings_for(url, second), NullEncoder()) as worker:
        with connect(both.database.url, "test") as connection:
            assert remove(connection, "docs")
        filled.execute("INSERT INTO docs VALUES (1000, 'later')")
        until("the second is kept", lambda: count(filled, "docs_2_embedded WHERE id = 1000") == 1)
        wait_fresh(worker)


def test_a_replica_is_searched_and_asked() -> None:
    with server_with_docs() as primary, Standby(primary) as standby:
        backfill(settings_for(primary.url(), sync_of("docs")), NullEncoder())
        with (
            psycopg.connect(primary.url(), autocommit=True) as writing,
            psycopg.connect(standby.url(), autocommit=True) as reading,
        ):

            def says(asked: str) -> object:
                try:
                    return (reading.execute(asked).fetchone() or (None,))[0]
                except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
                    return None  # it has not replayed that yet

            until("it has the vectors", lambda: says("SELECT count(*) FROM docs_embedded") == 300)
            until("all are fresh there", lambda: says("SELECT freshvec.is_fresh('docs')") is True)
            writing.execute("UPDATE docs SET body = 'edited' WHERE id = 1")
            until("it has the edit", lambda: says("SELECT freshvec.is_fresh('docs', '1')") is False)
            assert says("SELECT freshvec.is_fresh('docs', '2')") is True
            nearest = "SELECT id FROM docs_embedded ORDER BY embedding <=> '[1,1,1,1,1,1,1,1]' LIMIT 1"
            assert says(nearest) is not None


def test_removal_by_hand_leaves_the_table_as_it_was(filled: Connection) -> None:
    page = (REPOSITORY / "docs/troubleshooting.md").read_text(encoding="utf-8")
    (typed,) = re.findall(r"`(DROP SCHEMA freshvec [^`]*)`", page)
    warnings: list[str] = []
    filled.add_notice_handler(lambda notice: warnings.append(f"{notice.severity}: {notice.message_primary}"))
    filled.execute(typed.replace("\n", " ").replace("articles", "docs"))
    warnings.clear()
    filled.execute("INSERT INTO docs VALUES (1000, 'later'); UPDATE docs SET body = 'x'; TRUNCATE docs")
    assert warnings == []
    assert count(filled, "pg_trigger WHERE tgrelid = 'docs'::regclass") == 0
    left = "pg_class WHERE relname LIKE 'docs_embed%' OR relnamespace = to_regnamespace('freshvec')"
    assert count(filled, left) == 0
