"""Vectors in a column of the source, one interleaving at a time: the application never waits long for us, is
never a deadlock's victim, and loses nothing; and column and companion agree."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import psycopg
import pytest

from freshvec.db import connect
from freshvec.pipeline.rests import Rest, Rests
from freshvec.records import Fate, Outcome, Urgency
from freshvec.target.layout import writer as writer_of
from freshvec.target.upsert import TargetWriter
from tests.integration.at_rest import Kept
from tests.integration.locking import apply_to
from tests.integration.stepwise import HeldEncoder
from tests.support import (
    Connection,
    NullEncoder,
    backfill,
    bound_sync,
    content_hash,
    count,
    running,
    sync_of,
    until,
)

FENCE = 1_000


@pytest.fixture
def writer(column: Kept) -> Iterator[TargetWriter]:
    """What writes its vectors, without a worker around it; all is fresh."""
    backfill(column.settings, NullEncoder())
    with connect(column.settings.database.url, "test") as connection:
        yield writer_of(connection, bound_sync(connection, column.settings, NullEncoder()))


@pytest.fixture
def other(column: Kept) -> Iterator[Connection]:
    """A session of the application's that begins a transaction and does not end it."""
    with psycopg.connect(column.url) as session:
        yield session


def stored(row: int, text: str = "read before", fence: int = FENCE) -> Outcome:
    return Outcome((str(row),), fence, Fate.STORE, np.full(8, 7, np.float32), content_hash(text))


def write(writer: TargetWriter, *outcomes: Outcome) -> list[int]:
    """Write them in one transaction; the rows that somebody else has."""
    with writer.connection.transaction():
        assert writer.write(outcomes) == []
    return sorted(int(key) for (key,) in writer.held_back)


def holds_sevens(app: Connection) -> list[int]:
    found = app.execute("SELECT id FROM docs WHERE embedding = '[7,7,7,7,7,7,7,7]' ORDER BY id")
    return [row for (row,) in found]


def test_a_text_that_changed_since_it_was_read_keeps_its_vector_out(
    column: Kept, writer: TargetWriter
) -> None:
    column.app.execute("UPDATE docs SET body = 'read before' WHERE id IN (2, 3)")
    column.app.execute("UPDATE docs SET body = 'changed since' WHERE id = 3")
    before = column.app.execute("SELECT * FROM docs_embedding WHERE id = 3").fetchall()
    assert write(writer, stored(2), stored(3)) == []
    assert holds_sevens(column.app) == [2]
    assert column.app.execute("SELECT * FROM docs_embedding WHERE id = 3").fetchall() == before


def test_a_text_that_comes_back_amid_its_emptying_keeps_its_vector(
    column: Kept, writer: TargetWriter
) -> None:
    column.app.execute("UPDATE docs SET body = '' WHERE id = 2")
    clear = [Outcome((str(row),), FENCE, Fate.CLEAR) for row in (2, 3)]
    assert write(writer, *clear) == []
    empty = column.app.execute("SELECT id FROM docs WHERE embedding IS NULL").fetchall()
    assert empty == [(2,)], "row 3 has a text by now"
    assert count(column.app, "docs_embedding WHERE id IN (2, 3)") == 1


def test_a_row_that_somebody_else_has_is_left_alone(
    column: Kept, writer: TargetWriter, other: Connection
) -> None:
    column.app.execute("UPDATE docs SET body = 'read before' WHERE id IN (2, 3, 4)")
    column.app.execute("UPDATE docs SET body = NULL WHERE id IN (5, 6)")
    other.execute("UPDATE docs SET views = 1 WHERE id IN (3, 5)")
    clear = [Outcome((str(row),), FENCE, Fate.CLEAR) for row in (5, 6)]
    assert write(writer, stored(2), stored(3), stored(4), *clear) == [3, 5]
    other.commit()
    assert holds_sevens(column.app) == [2, 4]
    assert count(column.app, "docs WHERE views = 1") == 2, "nothing of the application's is lost"
    assert count(column.app, "docs_embedding WHERE id = 6") == 0
    assert write(writer, stored(3), clear[0]) == []
    assert holds_sevens(column.app) == [2, 3, 4]


SLOWLY = """CREATE FUNCTION slowly(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
  BEGIN IF $1 = 'slow' THEN PERFORM pg_sleep(1); END IF; RETURN $1; END $$"""


def test_what_commits_amid_our_statement_counts(column: Kept) -> None:
    """While the first row's text is rendered the application changes another column of the second, and the
    text of the third: both are later than the statement's snapshot, and earlier than its locks."""
    column.app.execute(SLOWLY)
    column.sync = sync_of("docs", expression="public.slowly(body)", target={"column": "embedding"})
    backfill(column.settings, NullEncoder())
    column.app.execute("UPDATE docs SET body = 'slow' WHERE id = 1")
    column.app.execute("UPDATE docs SET body = 'read before' WHERE id IN (2, 3)")
    outcomes = [stored(1, "slow"), stored(2), stored(3)]
    with connect(column.settings.database.url, "test") as connection:
        writer = writer_of(connection, bound_sync(connection, column.settings, NullEncoder()))
        writing = threading.Thread(target=write, args=(writer, *outcomes))
        writing.start()
        until(
            "it renders the first", lambda: count(column.app, "pg_stat_activity WHERE wait_event = 'PgSleep'")
        )
        column.app.execute("UPDATE docs SET views = 9 WHERE id = 2")
        column.app.execute("UPDATE docs SET body = 'changed since' WHERE id = 3")
        writing.join(60)
    assert holds_sevens(column.app) == [1, 2]
    assert column.app.execute("SELECT views FROM docs WHERE id = 2").fetchone() == (9,)
    assert count(column.app, "docs WHERE body = 'changed since'") == 1


def test_rows_that_are_taken_in_another_order_make_no_deadlock(
    column: Kept, writer: TargetWriter, other: Connection
) -> None:
    """The application has row 3 and wants row 2, which we have: it waits for our commit, we for nothing."""
    column.app.execute("UPDATE docs SET body = 'read before' WHERE id IN (2, 3)")
    other.execute("UPDATE docs SET views = 1 WHERE id = 3")
    waiting = threading.Thread(target=other.execute, args=("UPDATE docs SET views = 1 WHERE id = 2",))
    with writer.connection.transaction():
        writer.write([stored(2), stored(3)])
        assert writer.held_back == {("3",)}
        waiting.start()
        blocked = f"pg_stat_activity WHERE pid = {other.info.backend_pid} AND wait_event_type = 'Lock'"
        until("the application waits for the row", lambda: count(column.app, blocked) == 1)
    waiting.join(60)
    other.commit()
    assert count(column.app, "docs WHERE views = 1") == 2
    assert holds_sevens(column.app) == [2]


@pytest.mark.parametrize("mode", ["SHARE", "ACCESS EXCLUSIVE"])
def test_a_locked_table_is_not_waited_for(
    column: Kept, writer: TargetWriter, other: Connection, mode: str
) -> None:
    column.app.execute("UPDATE docs SET body = 'read before' WHERE id IN (2, 3)")
    other.execute(f"LOCK TABLE docs IN {mode} MODE".encode())
    began = time.monotonic()
    with writer.connection.transaction():
        assert writer.write([stored(2), stored(3)]) == []
        assert {("2",), ("3",)} == writer.held_back
    assert time.monotonic() - began < 1.0, "deadlock_timeout, after which somebody is chosen"
    other.rollback()
    assert holds_sevens(column.app) == []


def test_a_row_that_is_locked_for_long_is_written_once_it_is_free(column: Kept, other: Connection) -> None:
    encoder = column.encoder = HeldEncoder()
    with column.running() as worker:
        pipeline = worker.keepers[0].pipeline
        assert pipeline is not None
        with encoder.holding():
            column.app.execute("UPDATE docs SET body = 'edited' WHERE id IN (3, 4)")
            until("the text is being encoded", encoder.is_held.is_set)
            other.execute("UPDATE docs SET views = 5 WHERE id = 3")
        until("it rests", lambda: len(pipeline.ledger.rests) == 1)
        until("its neighbour is written", lambda: len(column.wrong()) == 1)
        assert not pipeline.reader.is_fresh()
        assert count(column.app, "freshvec.queue_docs") == 1, "its entry is still there"
        assert column.status()["backlog"] == 1
        other.commit()
        until("it is written, and answered", column.is_right)
    assert count(column.app, "docs WHERE views = 5") == 1
    assert encoder.encoded == 51, "its vector was not made again and again"


def test_a_backfill_leaves_locked_rows_to_the_queue(column: Kept, other: Connection) -> None:
    column.app.execute("ALTER TABLE docs ADD COLUMN embedding vector(8)")
    apply_to(column)
    other.execute("UPDATE docs SET views = 1 WHERE id BETWEEN 10 AND 19")
    with running(column.settings, column.encoder):
        until("the walk is over", lambda: column.status()["backfill_done"])
        until("the others are there", lambda: count(column.app, "docs WHERE embedding IS NOT NULL") == 40)
        assert column.status()["backlog"] == 10
        other.commit()
        until("all are there", column.is_right)
    assert count(column.app, "docs WHERE views = 1") == 10


def test_pauses_grow_while_a_row_is_not_to_be_had() -> None:
    rests, rest = Rests(), Rest(Urgency.LIVE, ("1",), ("a 1 (0,1)",))
    for pause in (0.01, 0.02, 0.04, 0.08):
        before = time.monotonic()
        rests.begin(rest)
        left = rests.patience()
        assert left <= pause <= left + time.monotonic() - before
        assert rests.entries(Urgency.LIVE) == ["a 1 (0,1)"]
        assert rests.entries(Urgency.BULK) == []
    until("the pause is over", rests.end_due)
    assert not rests.end_due()
    assert rests.entries(Urgency.LIVE) == []
    rests.forgive({("1",)})
    rests.begin(rest)
    assert rests.patience() == pytest.approx(0.01, abs=0.005)
