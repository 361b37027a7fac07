"""Ranges of a walk: handed out one after the other, each to one member, with a checkpoint of its own."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from freshvec.db import connect
from freshvec.encoding.budget import BatchBudget
from freshvec.encoding.dispatch import Dispatcher
from freshvec.errors import SupersededError
from freshvec.pipeline.epoch import Epoch, bury, leave, resize, take
from freshvec.pipeline.ledger import Ledger
from freshvec.pipeline.progress import Progress
from freshvec.pipeline.share import WHOLE, Share
from freshvec.pipeline.walker import Walker
from freshvec.records import Model
from freshvec.scans import ranges
from freshvec.scans.backfill import Backfill
from freshvec.scans.ranges import Ranges
from freshvec.schema.apply import apply
from freshvec.source.bound import BoundSync
from tests.support import MODEL, Connection, NullEncoder, backfill, bound_sync, settings_for, sync_of, until

ROWS = 2500  # three ranges


class Walked:
    """A table that is to be walked, and members of those who share it, each with a connection of its own."""

    def __init__(self, docs: Connection) -> None:
        self.docs = docs
        self.settings = settings_for(docs.info.dsn, sync_of("docs"), sweep_seconds=600)
        backfill(self.settings, NullEncoder())
        docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, %s) g", (ROWS,))
        docs.execute("ANALYZE docs")
        docs.execute("UPDATE freshvec.sync SET backfill_done = false, backfill_after = NULL")

    @contextmanager
    def member(self, shards: int = 0) -> Iterator["Member"]:
        with connect(self.settings.database.url, "test") as connection:
            bound = bound_sync(connection, self.settings, NullEncoder())
            # As those who share hold it.
            connection.execute("SELECT pg_advisory_lock_shared(1719035235, hashtext('docs'))")
            share = Share(shards, leads=False, pid=connection.info.backend_pid)
            yield Member(connection, bound, take(connection, "docs", bound.generation, share))

    @property
    def open_ranges(self) -> list[tuple[int | None, list[str] | None, list[str] | None]]:
        query = "SELECT member, after, upto FROM freshvec.range ORDER BY number"
        return self.docs.execute(query).fetchall()


class Member:
    def __init__(self, connection: Connection, bound: BoundSync, epoch: Epoch) -> None:
        self.connection = connection
        self.bound: BoundSync = bound
        self.epoch = epoch
        assert epoch.pid is not None
        self.pid = epoch.pid
        self.walk = Backfill(connection, bound, epoch)

    def page(self, rows: int) -> list[int]:
        return [int(row.key[0]) for row in self.walk.read_page(rows).rows]


@pytest.fixture
def walked(docs: Connection) -> Walked:
    return Walked(docs)


def test_members_have_ranges_of_their_own_that_are_all_rows_together(walked: Walked) -> None:
    seen: list[int] = []
    with walked.member() as one, walked.member() as other:
        while not (one.walk.exhausted and other.walk.exhausted):
            for member in (one, other):
                if not member.walk.exhausted:
                    seen += member.page(300)
    assert sorted(seen) == list(range(1, ROWS + 1))


def test_the_last_page_of_a_range_is_told_whether_it_is_full_or_empty(walked: Walked) -> None:
    with walked.member() as member:
        pages = [member.walk.read_page(500) for _ in range(2)]
        assert [(len(page.rows), page.ends) for page in pages] == [(500, False), (500, True)]
        first = member.walk.read_page(500)
        assert first.number != pages[0].number
        walked.docs.execute("DELETE FROM docs WHERE id > 1500")
        last = member.walk.read_page(500)
        assert (last.rows, last.ends, last.number) == ([], True, first.number)


def test_what_somebody_leaves_is_gone_on_with_where_it_was(walked: Walked) -> None:
    with walked.member() as one:
        number = one.walk.read_page(300).number
        assert number is not None
        with one.epoch.transaction(one.connection):
            ranges.reached(one.connection, one.bound, number, ("300",))
        with walked.member() as other:
            assert other.page(10) == list(range(1001, 1011))
            leave(one.connection, "docs", one.pid)
            assert (None, ["300"], ["1000"]) in walked.open_ranges
            assert Ranges(other.connection, other.bound, other.pid).left().is_free
            other.page(990)
            assert other.page(5) == [301, 302, 303, 304, 305]


def test_who_has_died_is_buried_with_what_it_counted(walked: Walked) -> None:
    with walked.member() as other:
        with walked.member() as one:
            one.page(300)
            with one.epoch.transaction(one.connection):
                ranges.count(one.connection, one.bound, one.pid, 300, 2)
            bury(other.connection, "docs")
            assert len(walked.open_ranges) == 1, "it lives"
            assert walked.open_ranges[0][0] == one.pid

        def is_free() -> bool:  # a session ends a moment after its client has closed it
            bury(other.connection, "docs")
            return walked.open_ranges[0][0] is None

        until("its range is free", is_free)
        query = "SELECT walk_rows, walk_found FROM freshvec.sync"
        assert walked.docs.execute(query).fetchone() == (300, 2)


def test_who_loses_a_shard_to_another_writes_no_more(walked: Walked) -> None:
    with walked.member(shards=0b11) as one, walked.member(shards=0b100) as other:
        with one.epoch.transaction(one.connection):
            pass
        share = Share(0b110, leads=True, pid=other.pid)
        now = take(other.connection, "docs", other.bound.generation, share)
        with pytest.raises(SupersededError), one.epoch.transaction(one.connection):
            pass
        with pytest.raises(SupersededError), other.epoch.transaction(other.connection):
            pass
        with now.transaction(other.connection):
            pass
        resize(other.connection, "docs", Share(0b10, leads=True, pid=other.pid))
        with pytest.raises(SupersededError), now.transaction(other.connection):
            pass


def test_one_alone_and_those_who_share_supersede_each_other(walked: Walked) -> None:
    with walked.member() as one:
        one.page(300)
        alone = take(one.connection, "docs", one.bound.generation, WHOLE)
        with pytest.raises(SupersededError), one.epoch.transaction(one.connection):
            pass
        with walked.member() as other, pytest.raises(SupersededError), alone.transaction(other.connection):
            pass


def test_one_alone_walks_what_members_have_left_as_well(walked: Walked) -> None:
    with walked.member() as one:
        number = one.walk.read_page(300).number
        assert number is not None
        with one.epoch.transaction(one.connection):
            ranges.reached(one.connection, one.bound, number, ("300",))
        epoch = take(one.connection, "docs", one.bound.generation, WHOLE)
        walk, seen = Backfill(one.connection, one.bound, epoch), list[int]()
        while not walk.exhausted:
            seen += [int(row.key[0]) for row in walk.read_page(400).rows]
    assert sorted(seen) == list(range(301, ROWS + 1))


def test_a_walk_does_not_end_while_the_end_of_a_range_is_not_written(walked: Walked) -> None:
    with walked.member() as one:
        number = one.walk.read_page(300).number
        assert number is not None
        epoch = take(one.connection, "docs", one.bound.generation, WHOLE)
        walk = Backfill(one.connection, one.bound, epoch)
        with epoch.transaction(one.connection):
            assert not walk.finish(0, 0)
        assert not walk.done
        with epoch.transaction(one.connection):
            ranges.passed(one.connection, one.bound, number)
            assert walk.finish(0, 0)
        assert walk.done


def test_who_waits_for_the_end_of_a_walk_finds_that_another_has_begun(walked: Walked) -> None:
    """One that nobody asked for is walked at leisure, the next one at once; and a replica that does not know
    why it began is not asked."""
    walked.docs.execute("UPDATE freshvec.sync SET walk_proves = true, walk_is_cut = true")
    with walked.member() as one, ThreadPoolExecutor(1) as threads:
        dispatcher = Dispatcher(NullEncoder(), BatchBudget(64, fixed=True))
        walker = Walker(
            one.connection,
            one.bound,
            dispatcher,
            walked.settings.daemon,
            Ledger(),
            one.epoch,
            threads,
            Progress().stages,
            100,
            lambda portion, rows: None,
            None,
        )
        until("all ranges are others'", lambda: walker.step() is None)
        assert walker.phase == "proving"
        walked.docs.execute(
            "UPDATE freshvec.sync SET walk_proves = false, walk_is_cut = false,"
            " walk_fence = nextval('freshvec.fence')"
        )
        until("a page is read", walker.step)
        assert walker.phase == "walking"
        dispatcher.stop(10)


def test_another_definition_is_walked_from_the_beginning_whatever_was_cut(walked: Walked) -> None:
    with walked.member() as member:
        while not member.walk.exhausted:
            member.page(900)
        assert walked.docs.execute("SELECT walk_is_cut FROM freshvec.sync").fetchone() == (True,)
        assert len(walked.open_ranges) == 3
    walked.docs.execute("ALTER TABLE docs ADD COLUMN title text DEFAULT 'title'")
    settings = settings_for(walked.docs.info.dsn, sync_of("docs", columns=["title"]), sweep_seconds=600)
    model = Model(MODEL, NullEncoder.dimension, 256, NullEncoder.fingerprint)
    with connect(settings.database.url, "test") as connection:
        apply(connection, settings.sync[0], model)
    state = "SELECT walk_is_cut, backfill_done, backfill_after FROM freshvec.sync"
    assert walked.docs.execute(state).fetchone() == (False, False, None)
    assert walked.open_ranges == []
    backfill(settings, NullEncoder())
    hashes = "SELECT count(*), count(DISTINCT content_hash) FROM docs_embedding"
    assert walked.docs.execute(hashes).fetchone() == (ROWS, 1)
