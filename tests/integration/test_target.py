"""The fence, one interleaving at a time: what batches that are under way together can do to a row."""

from collections.abc import Iterator

import numpy as np
import pytest

from freshvec.db import connect
from freshvec.records import Fate, Key, Outcome
from freshvec.target.upsert import TargetWriter
from tests.support import Connection, NullEncoder, backfill, bound_sync, settings_for, sync_of

KEY = ("1",)


@pytest.fixture
def writer(url: str, docs: Connection) -> Iterator[TargetWriter]:
    docs.execute("INSERT INTO docs VALUES (1, 'A')")
    settings = settings_for(url, sync_of("docs"))
    backfill(settings, NullEncoder())
    docs.execute("UPDATE docs_embedding SET fence = 3, content_hash = 'A'")
    with connect(settings.database.url, "test") as connection:
        yield TargetWriter(connection, bound_sync(connection, settings, NullEncoder()))


def write(writer: TargetWriter, fence: int, fate: Fate, text: bytes | None = None) -> list[Key]:
    """Write one outcome of the row; gives the keys of rows to be read again."""
    vector = np.full(8, fence, dtype=np.float32) if fate is Fate.STORE and text else None
    with writer.connection.transaction():
        return writer.write([Outcome(KEY, fence, fate, vector, text)])


def stored(docs: Connection) -> tuple[object, ...] | None:
    return docs.execute("SELECT content_hash, fence FROM docs_embedding").fetchone()


def test_an_older_read_does_not_overwrite_a_newer_one(writer: TargetWriter, docs: Connection) -> None:
    write(writer, 6, Fate.STORE, b"newer")
    write(writer, 5, Fate.STORE, b"older")
    assert stored(docs) == (b"newer", 6)


def test_an_unchanged_row_raises_the_fence_against_an_older_read(
    writer: TargetWriter, docs: Connection
) -> None:
    assert write(writer, 6, Fate.TOUCH, b"A") == []
    assert write(writer, 5, Fate.STORE, b"older") == [KEY], "one more reading costs a hash"
    assert stored(docs) == (b"A", 6)


def test_an_older_read_written_before_the_touch_is_not_fenced_in(
    writer: TargetWriter, docs: Connection
) -> None:
    write(writer, 5, Fate.STORE, b"older")
    assert write(writer, 6, Fate.TOUCH, b"A") == [KEY], "the row is to be read again"
    assert stored(docs) == (b"older", 5)


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


def test_of_several_outcomes_of_a_row_the_last_read_counts(writer: TargetWriter, docs: Connection) -> None:
    vector = np.ones(8, dtype=np.float32)
    with writer.connection.transaction():
        writer.write([Outcome(KEY, fence, Fate.STORE, vector, b"%d" % fence) for fence in (5, 9, 7)])
    assert stored(docs) == (b"9", 9)


def test_a_tombstone_is_cleared_unless_something_was_written_since(
    writer: TargetWriter, docs: Connection
) -> None:
    tombstone = Outcome(KEY, 6, Fate.STORE)
    write(writer, 6, Fate.STORE, None)
    write(writer, 7, Fate.STORE, b"newer")
    with writer.connection.transaction():
        writer.clear_tombstones([tombstone])
    assert stored(docs) == (b"newer", 7)
    write(writer, 8, Fate.STORE, None)
    with writer.connection.transaction():
        writer.clear_tombstones([Outcome(KEY, 8, Fate.STORE)])
    assert stored(docs) is None


def test_a_row_that_was_cleared_leaves_nothing_and_a_newer_reading_stays(
    writer: TargetWriter, docs: Connection
) -> None:
    write(writer, 9, Fate.STORE, b"newer")
    write(writer, 8, Fate.CLEAR)
    assert stored(docs) == (b"newer", 9)
    write(writer, 10, Fate.CLEAR)
    assert stored(docs) is None
