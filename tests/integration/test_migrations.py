"""The migration runner."""

import shutil
import threading
from pathlib import Path

import psycopg
import pytest

from freshvec import data
from freshvec.db import Connection, connect
from freshvec.errors import DatabaseError, SchemaError
from freshvec.schema import migrations
from tests.support import count, exists, settings_for, until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copied = tmp_path / "migrations"
    shutil.copytree(data.folder("migrations"), copied)
    return copied


def open_(url: str) -> Connection:
    return connect(settings_for(url).database.url, "test")


def test_applied_once_and_in_order(url: str, folder: Path) -> None:
    (folder / "0900_more.sql").write_text("CREATE TABLE freshvec.more (x int)")
    (folder / "0901_fill.sql").write_text("INSERT INTO freshvec.more VALUES (1)")
    with open_(url) as connection:
        assert migrations.migrate(connection, folder)[-2:] == ["0900_more.sql", "0901_fill.sql"]
        assert migrations.migrate(connection, folder) == []
        assert count(connection, "freshvec.more") == 1


def test_many_starting_together_apply_once(url: str) -> None:
    applied: list[list[str]] = []

    def start() -> None:
        with open_(url) as connection:
            applied.append(migrations.migrate(connection))

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, applied)) == [0] * 5 + [len(list(data.folder("migrations").glob("*.sql")))]


def test_a_changed_file_is_refused(url: str, folder: Path) -> None:
    with open_(url) as connection:
        migrations.migrate(connection, folder)
        first = folder / "0001_schema.sql"
        first.write_text(first.read_text() + "\n-- edited")
        with pytest.raises(SchemaError, match=r"0001_schema\.sql.*changed since it was applied.*Restore"):
            migrations.migrate(connection, folder)


def test_a_missing_file_is_refused(url: str, folder: Path) -> None:
    (folder / "0900_future.sql").write_text("SELECT 1")
    with open_(url) as connection:
        migrations.migrate(connection, folder)
        (folder / "0900_future.sql").unlink()
        with pytest.raises(SchemaError, match=r"0900_future\.sql.*does not have the file.*upgrade"):
            migrations.migrate(connection, folder)


def test_one_that_needs_no_transaction_says_so(url: str, folder: Path) -> None:
    (folder / "0900_index.sql").write_text(
        "-- freshvec: no-transaction\n"
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS extra ON freshvec.rescan (sync);\n"
        "SELECT 1;\n"
    )
    with open_(url) as connection:
        assert "0900_index.sql" in migrations.migrate(connection, folder)
        assert exists(connection, "freshvec.extra")


def test_a_failing_one_leaves_nothing_and_can_be_tried_again(url: str, folder: Path) -> None:
    broken = folder / "0900_broken.sql"
    broken.write_text("CREATE TABLE freshvec.half (x int); SELECT 1 / 0;")
    with open_(url) as connection:
        with pytest.raises(DatabaseError, match=r"0900_broken\.sql.*division by zero"):
            migrations.migrate(connection, folder)
        assert not exists(connection, "freshvec.half")
        broken.write_text("CREATE TABLE freshvec.half (x int)")
        assert migrations.migrate(connection, folder) == ["0900_broken.sql"]


def test_who_reads_the_status_meanwhile_does_not_fail(url: str, folder: Path) -> None:
    """The reader holds one thing and wants another, the migration has that and wants the first."""
    with open_(url) as connection:
        migrations.migrate(connection, folder)
    tables = ("sync", "lag_hour")
    text = "".join(f"ALTER TABLE freshvec.{table} ADD COLUMN more text;\n" for table in tables)
    (folder / "9000_more.sql").write_text(text)
    applied: list[str] = []

    def migrate() -> None:
        with open_(url) as connection:
            applied.extend(migrations.migrate(connection, folder))

    with psycopg.connect(url, autocommit=True) as reader, open_(url) as look:
        thread = threading.Thread(target=migrate)
        reader.execute("SET deadlock_timeout = '500ms'")  # it would be the one that is ended
        with reader.transaction():
            reader.execute("SELECT FROM freshvec.lag_hour")
            thread.start()
            waiting = (
                "SELECT EXISTS (SELECT FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND NOT granted)"
            )
            until("the migration waits", lambda: look.execute(waiting).fetchone() == (True,))
            assert reader.execute("SELECT count(*) FROM freshvec.sync").fetchone() == (0,)
        thread.join(60)
    assert applied == ["9000_more.sql"]
