"""The queue on a real server: entries are known by transaction and place, reads begin where it is proven."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from freshvec.capture import queue
from freshvec.capture.queue import QueueReader
from freshvec.db import connect
from freshvec.embedded import EmbeddedPostgres
from freshvec.records import Entry, Key
from freshvec.source.bound import BoundSync
from tests.integration.stepwise import Bench, HeldEncoder, drain
from tests.staleness import stale
from tests.support import Connection, bound_sync, count, running, until, wait_fresh


@pytest.fixture
def bench(docs: Connection) -> Bench:
    return Bench(docs)


@contextmanager
def queue_of(bench: Bench) -> Iterator[tuple[Connection, BoundSync]]:
    """A session of the worker's, and the sync that it keeps."""
    with connect(bench.settings.database.url, "test") as connection:
        yield connection, bound_sync(connection, bench.settings, HeldEncoder())


def keys(*numbers: int) -> list[Key]:
    return [(str(number),) for number in numbers]


def read(reader: QueueReader, limit: int = 100, *, bulk: bool = False) -> list[Entry]:
    """The entries of rows that changed, when nothing is handed out."""
    return [entry for change in reader.read(limit, [], bulk=bulk)[1] for entry in change.entries]


def test_an_entry_that_takes_the_place_of_another_is_neither_hidden_nor_deleted_with_it(bench: Bench) -> None:
    with queue_of(bench) as (connection, bound), bench.reader() as reader:
        bench.edit("first", row=1)
        answered = read(reader)
        bench.docs.execute("DELETE FROM freshvec.queue_docs")
        bench.docs.execute("VACUUM freshvec.queue_docs")
        bench.edit("second", row=1)
        (place,) = bench.docs.execute("SELECT ctid::text FROM freshvec.queue_docs").fetchone() or ("",)
        assert place == answered[0].split()[2], "it has the same place"
        assert drain(reader, list(answered)) == keys(1)
        assert queue.delete(connection, bound, answered) == []
        assert count(bench.docs, "freshvec.queue_docs") == 1


def test_a_table_that_is_written_anew_loses_no_entry(bench: Bench) -> None:
    """VACUUM FULL gives the entries of one transaction each other's places."""
    with queue_of(bench) as (connection, bound), bench.reader() as reader:
        queue.append(connection, bound, keys(1, 2, 3, 1, 2, 3))
        first = read(reader, 2, bulk=True)
        bench.docs.execute("DELETE FROM freshvec.queue_docs WHERE ctid = '(0,1)'")
        bench.docs.execute("VACUUM FULL freshvec.queue_docs")
        queue.delete(connection, bound, first)
        left = bench.docs.execute("SELECT k1 FROM freshvec.queue_docs ORDER BY ctid").fetchall()
        assert left == [(2,), (3,), (1,), (2,), (3,)]


@pytest.mark.parametrize(
    "anew", ["VACUUM FULL freshvec.queue_docs", "CLUSTER freshvec.queue_docs USING queue_docs_order"]
)
def test_the_worker_finds_what_a_table_written_anew_has_hidden(bench: Bench, anew: str) -> None:
    bench.docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(4, 90) g")
    encoder = HeldEncoder()
    with running(bench.settings, encoder) as worker:
        wait_fresh(worker)
        with encoder.holding():
            bench.docs.execute("UPDATE docs SET body = 'changed ' || id")
            until("they are being encoded", encoder.is_held.is_set)
            bench.docs.execute("DELETE FROM freshvec.queue_docs WHERE k1 = 7")  # so that the others move up
            bench.docs.execute(anew.encode())
            bench.edit(None)  # written at once, and then the reader finds nothing more
            until("that is written", lambda: (bench.stored() or (None,))[0] is None)
        until("no entry is left", lambda: count(bench.docs, "freshvec.queue_docs") == 0)
        wait_fresh(worker)
        assert stale(bench.docs, encoder) == []


def test_a_late_transaction_is_not_left_behind_by_bulk_that_never_ends(bench: Bench) -> None:
    with queue_of(bench) as (connection, bound), bench.reader() as reader, bench.session() as slow:
        slow.execute("INSERT INTO freshvec.queue_docs (bulk, k1) SELECT true, 1")
        handed_out: list[Entry] = []
        for turn in range(20):
            queue.append(connection, bound, keys(2, 3) * 20)
            changes = reader.read(10, handed_out, bulk=True)[1]
            handed_out += [entry for change in changes for entry in change.entries]
            if turn == 4:
                slow.commit()
            if ("1",) in [change.key for change in changes]:
                break
        else:
            pytest.fail("it waits behind what began later")
        assert turn > 4


@pytest.mark.parametrize("bulk", [False, True])
def test_reads_stay_short_beside_a_transaction_that_goes_on(bench: Bench, bulk: bool) -> None:
    """What was answered since it began cannot be vacuumed, nor passed over by the oldest that runs."""
    with queue_of(bench) as (connection, bound), bench.session() as slow:
        reader = QueueReader(connection, bound)
        slow.execute("INSERT INTO docs VALUES (1000, 'late')")
        queue.append(connection, bound, keys(*[1] * 5000), bulk=bulk)
        while answered := read(reader, 1000, bulk=bulk):
            assert queue.delete(connection, bound, answered)
        assert read(reader, bulk=bulk) == []
        before = _index_entries_read(connection)
        for _ in range(10):
            queue.append(connection, bound, keys(2), bulk=bulk)
            answered = read(reader, bulk=bulk)
            assert len(queue.delete(connection, bound, answered)) == 1
            assert read(reader, bulk=bulk) == []
        assert _index_entries_read(connection) - before < 500
        slow.commit()
        assert drain(reader, []) == keys(1000)


def test_a_look_that_finds_the_queue_empty_lets_reads_begin_there(bench: Bench) -> None:
    """Where nothing is read between two changes but that all is answered."""
    with queue_of(bench) as (connection, bound), bench.session() as slow:
        reader = QueueReader(connection, bound)
        slow.execute("INSERT INTO docs VALUES (1000, 'late')")
        queue.append(connection, bound, keys(*[1] * 2000))
        while answered := read(reader, 1000, bulk=True):
            queue.delete(connection, bound, answered)
            if reader.is_empty():
                break
        before = _index_entries_read(connection)
        for _ in range(10):
            queue.append(connection, bound, keys(2))
            assert not reader.is_empty()
            assert len(queue.delete(connection, bound, read(reader, bulk=True))) == 1
            assert reader.is_empty()
        assert _index_entries_read(connection) - before < 500
        slow.commit()
        assert not reader.is_empty(), "it ran when the queue was empty"
        assert drain(reader, []) == keys(1000)


def _index_entries_read(connection: Connection) -> int:
    connection.execute("SELECT pg_stat_force_next_flush()")
    query = "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'queue_docs'"
    (entries,) = connection.execute(query).fetchone() or (0,)
    return int(entries)


@pytest.mark.parametrize("ending", ["ROLLBACK TO a", "RELEASE a"])
def test_changes_within_a_savepoint_are_of_the_whole_transaction(bench: Bench, ending: str) -> None:
    with bench.reader() as reader, bench.session() as slow:
        slow.execute("SAVEPOINT a")
        bench.edit("within", row=1, session=slow)
        slow.execute(ending)
        bench.edit("after", row=2, session=slow)
        bench.edit("quick", row=3)
        handed_out: list[Entry] = []
        assert drain(reader, handed_out) == keys(3)
        slow.commit()
        assert drain(reader, handed_out) == (keys(2) if ending == "ROLLBACK TO a" else keys(1, 2))


def test_a_prepared_transaction_still_runs() -> None:
    with (
        EmbeddedPostgres(18, max_prepared_transactions="5") as server,
        psycopg.connect(server.url(), autocommit=True) as docs,
    ):
        docs.execute("CREATE EXTENSION vector; CREATE TABLE docs (id bigint PRIMARY KEY, body text)")
        bench = Bench(docs)
        with bench.reader() as reader:
            docs.execute("BEGIN; UPDATE docs SET body = 'prepared' WHERE id = 1; PREPARE TRANSACTION 'a'")
            bench.edit("quick", row=2)
            handed_out: list[Entry] = []
            assert drain(reader, handed_out) == keys(2)
            docs.execute("COMMIT PREPARED 'a'")
            assert drain(reader, handed_out) == keys(1)


def test_entries_of_a_server_that_counted_further_are_read(bench: Bench) -> None:
    """A dump that was restored brings transaction ids that are still to come here."""
    with bench.reader() as reader:
        assert drain(reader, []) == []
        given = "INSERT INTO freshvec.queue_docs (xid, bulk, k1) VALUES ('9999999999', false, 1)"
        bench.docs.execute(given)
        assert drain(reader, []) == keys(1)
