"""One row under way in two members: as part of a page here, as a live change there. One step at a time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest

from freshvec.db import connect
from freshvec.pipeline.epoch import take
from freshvec.pipeline.ledger import Ledger, Portion, Ready
from freshvec.pipeline.progress import Progress
from freshvec.pipeline.share import Share
from freshvec.pipeline.writer import Writer
from freshvec.records import Entry, Fate, Key, Outcome, Urgency
from tests.integration.stepwise import KEY, Bench, drain, outcome
from tests.support import Connection, NullEncoder, bound_sync, count, until

Entries = dict[Key, tuple[Entry, ...]]


class Members(Bench):
    """The table is fresh, or walked; members write what the test says they have read."""

    @contextmanager
    def member(self) -> Iterator["Member"]:
        with connect(self.settings.database.url, "test") as connection:
            connection.execute("SELECT pg_advisory_lock_shared(1719035235, hashtext('docs'))")
            bound = bound_sync(connection, self.settings, NullEncoder())
            share = Share(0, leads=False, pid=connection.info.backend_pid)
            ledger, epoch = Ledger(), take(connection, "docs", bound.generation, share)
            writer = Writer(connection, bound, self.settings.daemon, Progress(), ledger, epoch)
            yield Member(writer, ledger)

    def fence(self) -> int:
        (number,) = self.docs.execute("SELECT nextval('freshvec.fence')").fetchone() or (0,)
        return int(number)

    def walk(self, *, begin: bool) -> None:
        """As the one that leads begins a walk, or ends it."""
        fence = ", walk_fence = (SELECT last_value FROM freshvec.fence)" if begin else ""
        self.docs.execute(f"UPDATE freshvec.sync SET backfill_done = {not begin}{fence}".encode())

    @property
    def queued(self) -> list[tuple[int]]:
        return self.docs.execute("SELECT k1 FROM freshvec.queue_docs").fetchall()


class Member:
    def __init__(self, writer: Writer, ledger: Ledger) -> None:
        self.writer = writer
        self.ledger = ledger

    def read(
        self,
        outcome: Outcome,
        urgency: Urgency = Urgency.LIVE,
        entries: dict[Key, tuple[Entry, ...]] | None = None,
    ) -> Ready:
        portion = Portion(urgency, outcome.fence, 1, entries or {})
        self.ledger.open(portion)
        return Ready(portion, [outcome])

    def write(self, *read: Ready) -> None:
        self.writer.flush(list(read))


@pytest.fixture
def members(docs: Connection) -> Members:
    return Members(docs)


def test_a_page_does_not_come_back_over_a_row_that_was_emptied(members: Members) -> None:
    members.walk(begin=True)
    members.docs.execute("DELETE FROM docs_embedding WHERE id = 1")
    with members.member() as walker, members.member() as owner:
        page = walker.read(outcome(members.fence()), Urgency.BACKFILL)
        members.edit(None)
        owner.write(owner.read(outcome(members.fence(), Fate.CLEAR, None)))
        assert members.stored() is not None, "a tombstone"
        walker.write(page)
        assert count(members.docs, "docs_embedding WHERE id = 1 AND embedding IS NOT NULL") == 0
        owner.writer.step()
        assert members.stored() is not None, "others may walk on"
        members.walk(begin=False)
        owner.write(owner.read(replace(outcome(members.fence()), key=("2",))))
        owner.writer.step()
        assert members.stored() is None


def test_what_was_read_before_a_walk_is_read_again(members: Members) -> None:
    """Its row may have come back unnoted to what the target holds, so that the walk did nothing about it."""
    members.edit("new")
    with members.reader() as reader, members.member() as owner:
        fence, (change,) = reader.read(10, [], bulk=False)
        old = owner.read(outcome(fence), entries={KEY: change.entries})
        before = members.stored()
        for is_begun in (True, False):
            members.walk(begin=is_begun)
            owner.write(old)
            assert members.stored() == before
            assert owner.ledger.has_missed
            assert owner.ledger.in_flight() == 0
            assert drain(reader, []) == [KEY], "its entry is there"
            old = owner.read(outcome(fence), entries={KEY: change.entries})
            reader.start_over()


def test_a_page_queues_what_is_to_go(members: Members) -> None:
    with members.member() as walker:
        before = members.stored()
        for fate in (Fate.CLEAR, Fate.REMOVE):
            walker.write(walker.read(outcome(members.fence(), fate, None), Urgency.BACKFILL))
            assert members.stored() == before
            assert members.queued == [(1,)]
            members.docs.execute("DELETE FROM freshvec.queue_docs")


def test_members_count_for_themselves(members: Members) -> None:
    members.docs.execute("DELETE FROM docs_embedding WHERE id = 1")
    before = members.docs.execute("SELECT rows_embedded FROM freshvec.sync").fetchone()
    with members.member() as owner:
        owner.write(owner.read(outcome(members.fence())))
        assert members.docs.execute("SELECT rows_embedded FROM freshvec.sync").fetchone() == before
        assert members.docs.execute("SELECT rows_embedded FROM freshvec.member").fetchone() == (1,)


def test_a_deadlock_with_another_member_is_tried_again(members: Members) -> None:
    with members.member() as owner, members.session() as other:
        until("this one is ended, not the other one", lambda: is_ended_by_deadlock(members, owner, other))


def is_ended_by_deadlock(members: Members, owner: Member, other: Connection) -> bool:
    """The other one has row 2 and wants row 1, as this one has row 1 and wants row 2. Postgres ends whoever
    has waited for a second then, which on a busy machine may be the other one: False."""
    other.execute("UPDATE docs_embedding SET fence = fence WHERE id = 2")
    first, second = outcome(members.fence()), replace(outcome(members.fence()), key=("2",))
    thread = threading.Thread(target=owner.write, args=[owner.read(first), owner.read(second)])
    thread.start()
    blocked = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
    pid = owner.writer.target.member
    with psycopg.connect(members.docs.info.dsn, autocommit=True) as looking:
        until("it waits for row 2", lambda: looking.execute(blocked, (pid,)).fetchone() == (True,))
    try:
        other.execute("UPDATE docs_embedding SET fence = fence WHERE id = 1")
        other.commit()
    except psycopg.errors.DeadlockDetected:
        other.rollback()
        return False
    finally:
        thread.join(60)
        assert not thread.is_alive()
        assert (members.stored() or ())[1:] == (first.fence,)
    return True


def test_a_row_that_two_members_write_at_once_is_counted_once(members: Members) -> None:
    """The second one's statement began before the first one's commit, and waits for it."""
    members.docs.execute("DELETE FROM docs_embedding WHERE id = 1")
    with members.member() as owner, members.session() as other:
        columns = "id, embedding, content_hash, fingerprint, fence"
        values = "SELECT 1, embedding, content_hash, fingerprint, 1 FROM docs_embedding WHERE id = 2"
        other.execute(f"INSERT INTO docs_embedding ({columns}) {values}".encode())
        thread = threading.Thread(target=owner.write, args=[owner.read(outcome(members.fence()))])
        thread.start()
        waits = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
        pid = owner.writer.target.member
        until("it waits", lambda: members.docs.execute(waits, (pid,)).fetchone() == (True,))
        other.commit()
        thread.join(60)
        assert members.stored() is not None
        assert members.docs.execute("SELECT rows_embedded FROM freshvec.member").fetchone() == (0,)
