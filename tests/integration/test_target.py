"""The fence, one interleaving at a time: what two workers, or one with batches under way, can do to a row."""

import threading
from collections.abc import Iterator

import numpy as np
import psycopg
import pytest

from freshvec.db import WRITE_LOCK_CLASS, connect
from freshvec.pipeline.epoch import take
from freshvec.pipeline.ledger import Ledger, Portion, Ready
from freshvec.pipeline.progress import Progress
from freshvec.pipeline.writer import Writer
from freshvec.records import Fate, Key, Outcome, Urgency
from freshvec.target.upsert import TargetWriter
from tests.support import Connection, NullEncoder, backfill, bound_sync, settings_for, sync_of, until

KEY: Key = ("1",)


@pytest.fixture
def writer(url: str, docs: Connection) -> Iterator[TargetWriter]:
    docs.execute("INSERT INTO docs VALUES (1, 'A')")
    settings = settings_for(url, sync_of("docs"))
    backfill(settings, NullEncoder())
    docs.execute("UPDATE docs_embedding SET fence = 3, content_hash = 'A'")
    with connect(settings.database.url, "test") as connection:
        yield TargetWriter(connection, bound_sync(connection, settings, NullEncoder()))


def write(writer: TargetWriter, fence: int, fate: Fate, text: bytes | None = None) -> list[Key]:
    """Write one outcome; gives the keys to be read again."""
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
    write(writer, 5, Fate.STORE, b"older")
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


def test_a_removal_waits_for_writers_under_way_and_sees_what_they_wrote(
    url: str, writer: TargetWriter, docs: Connection
) -> None:
    """Else it could look for the row's vector before that is there, and a writer for the row while it is."""
    settings, encoder = settings_for(url, sync_of("docs")), NullEncoder()
    docs.execute("DELETE FROM docs")
    waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with psycopg.connect(url) as other, connect(settings.database.url, "test") as connection:
        bound = bound_sync(connection, settings, encoder)
        epoch, ledger = take(connection, "docs", bound.generation), Ledger()
        removal = Portion(Urgency.LIVE, 9, 1)
        ledger.open(removal)
        removing = Writer(connection, bound, settings.daemon, Progress(), ledger, epoch)
        other.execute("SELECT pg_advisory_xact_lock_shared(%s, hashtext('docs'))", (WRITE_LOCK_CLASS,))
        other.execute("UPDATE docs_embedding SET fence = 8, content_hash = 'under way'")
        ready = [Ready(removal, [Outcome(KEY, 9, Fate.REMOVE)])]
        thread = threading.Thread(target=removing.flush, args=(ready,))
        thread.start()
        until("the removal waits", lambda: docs.execute(waits).fetchone() == (1,))
        other.commit()
        thread.join(60)
    assert stored(docs) is None


def test_of_several_outcomes_of_a_row_the_last_read_counts(writer: TargetWriter, docs: Connection) -> None:
    vector = np.ones(8, dtype=np.float32)
    with writer.connection.transaction():
        writer.write([Outcome(KEY, fence, Fate.STORE, vector, b"%d" % fence) for fence in (5, 9, 7)])
    assert stored(docs) == (b"9", 9)
