"""The fence, one interleaving at a time: what two workers, or one with batches under way, can do to a row."""

from collections.abc import Iterator

import numpy as np
import psycopg
import pytest

from freshvec.db import connect
from freshvec.records import Fate, Outcome
from freshvec.target.upsert import TargetWriter
from tests.support import Connection, NullEncoder, backfill, bound_sync, count, settings_for, sync_of

KEY = ("1",)


@pytest.fixture
def writer(url: str, docs: Connection) -> Iterator[TargetWriter]:
    docs.execute("INSERT INTO docs VALUES (1, 'A')")
    settings = settings_for(url, sync_of("docs"))
    backfill(settings, NullEncoder())
    docs.execute("UPDATE docs_embedding SET fence = 3, content_hash = 'A'")
    with connect(settings.database.url, "test") as connection:
        yield TargetWriter(connection, bound_sync(connection, settings, NullEncoder()))


def write(writer: TargetWriter, fence: int, fate: Fate, text: bytes | None = None) -> None:
    vector = np.full(8, fence, dtype=np.float32) if fate is Fate.STORE and text else None
    with writer.connection.transaction():
        writer.write([Outcome(KEY, fence, fate, vector, text)])


def stored(docs: Connection) -> tuple[object, ...] | None:
    return docs.execute("SELECT content_hash, fence FROM docs_embedding").fetchone()


def queued(docs: Connection) -> int:
    return count(docs, "freshvec.queue_docs")


def test_an_older_read_does_not_overwrite_a_newer_one(writer: TargetWriter, docs: Connection) -> None:
    write(writer, 6, Fate.STORE, b"newer")
    write(writer, 5, Fate.STORE, b"older")
    assert stored(docs) == (b"newer", 6)


def test_an_unchanged_row_raises_the_fence_against_an_older_read(
    writer: TargetWriter, docs: Connection
) -> None:
    write(writer, 6, Fate.TOUCH, b"A")
    write(writer, 5, Fate.STORE, b"older")
    assert stored(docs) == (b"A", 6)
    assert queued(docs) == 0


def test_an_older_read_written_before_the_touch_is_not_fenced_in(
    writer: TargetWriter, docs: Connection
) -> None:
    write(writer, 5, Fate.STORE, b"older")
    write(writer, 6, Fate.TOUCH, b"A")
    assert stored(docs) == (b"older", 5)
    assert queued(docs) == 1, "the row is to be read again"


def test_an_emptied_text_keeps_its_fence(writer: TargetWriter, docs: Connection) -> None:
    write(writer, 6, Fate.STORE, None)
    write(writer, 5, Fate.STORE, b"older")
    assert stored(docs) == (None, 6)


def test_a_deleted_row_does_not_come_back(writer: TargetWriter, docs: Connection) -> None:
    docs.execute("DELETE FROM docs")
    write(writer, 6, Fate.REMOVE)
    assert stored(docs) is None
    write(writer, 5, Fate.STORE, b"older")
    write(writer, 7, Fate.STORE, b"even a newer one")
    assert stored(docs) is None


def test_a_removal_waits_for_writers_under_way_and_sees_what_they_wrote(
    writer: TargetWriter, docs: Connection
) -> None:
    with psycopg.connect(docs.info.dsn) as other:
        lock = "SELECT pg_try_advisory_xact_lock(1719035235, -id) FROM freshvec.sync"
        with writer.connection.transaction():
            writer.write([Outcome(KEY, 9, Fate.STORE, np.ones(8, dtype=np.float32), b"under way")])
            assert other.execute(lock).fetchone() == (False,)
        assert other.execute(lock).fetchone() == (True,)


def test_of_several_outcomes_of_a_row_the_last_read_counts(writer: TargetWriter, docs: Connection) -> None:
    vector = np.ones(8, dtype=np.float32)
    with writer.connection.transaction():
        writer.write([Outcome(KEY, fence, Fate.STORE, vector, b"%d" % fence) for fence in (5, 9, 7)])
    assert stored(docs) == (b"9", 9)
