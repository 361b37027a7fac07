"""Walks that read from a replica: what it does not show yet is not undone, and where it is away the primary
is read."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from freshvec.config import Settings
from freshvec.db import connect
from freshvec.encoding.budget import BatchBudget
from freshvec.encoding.dispatch import Dispatcher
from freshvec.pipeline.epoch import take
from freshvec.pipeline.ledger import Ledger, Portion, Ready
from freshvec.pipeline.stages import Stages
from freshvec.pipeline.walker import Walker
from freshvec.records import Fate, Outcome, SourceRow, Tokens, Urgency
from freshvec.scans.backfill import Backfill, Page
from freshvec.scans.replica import Replica
from freshvec.target.upsert import TargetWriter
from tests.staleness import stale
from tests.standby import Standby, server_with_docs
from tests.support import (
    Connection,
    NullEncoder,
    backfill,
    bound_sync,
    count,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
)


class Replicated:
    """A table `docs` that is fresh, and a standby that can be held back."""

    def __init__(self, primary: Connection, standby: Connection) -> None:
        self.primary = primary
        self.standby = standby

    def settings(self, replica: str | None = None, page_rows: int = 100) -> Settings:
        url = self.primary.info.dsn
        settings = settings_for(url, sync_of("docs"), sweep_seconds=600, page_rows=page_rows)
        given = settings.model_dump(exclude_unset=True)
        given["database"] = {"url": url, "replica": replica or self.standby.info.dsn}
        return Settings.model_validate(given)

    def catch_up(self) -> None:
        (lsn,) = self.primary.execute("SELECT pg_current_wal_insert_lsn()").fetchone() or ("",)
        seen = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
        until("it has replayed all", lambda: self.standby.execute(seen, (lsn,)).fetchone() == (True,))

    def hold_back(self) -> None:
        """The standby stays as it is now."""
        self.standby.execute("SELECT pg_wal_replay_pause()")
        paused = "SELECT pg_get_wal_replay_pause_state() = 'paused'"
        until("it stands still", lambda: self.standby.execute(paused).fetchone() == (True,))


@pytest.fixture
def replicated() -> Iterator[Replicated]:
    with (
        server_with_docs() as server,
        Standby(server) as standby,
        psycopg.connect(server.url(), autocommit=True) as primary,
        psycopg.connect(standby.url(), autocommit=True) as replica,
    ):
        yield Replicated(primary, replica)


def test_a_page_of_before_a_change_does_not_undo_it(replicated: Replicated) -> None:
    settings, encoder = replicated.settings(), NullEncoder()
    backfill(settings, encoder)
    with (
        connect(settings.database.url, "test") as primary,
        connect(settings.database.replica, "test") as standby,
    ):
        bound = bound_sync(primary, settings, encoder)
        walk = Backfill(primary, bound, take(primary, "docs", bound.generation), Replica(standby))
        replicated.primary.execute("UPDATE docs SET body = 'old'")
        walk.restart([])
        drawn = walk.draw_fence()
        next_one = replicated.primary.execute("SELECT nextval('freshvec.fence')").fetchone()
        assert next_one == (drawn + 1,), "it does not know of the walk: the primary's"
        replicated.primary.execute("SELECT nextval('freshvec.fence') FROM generate_series(1, 100)")
        replicated.catch_up()
        replicated.hold_back()
        replicated.primary.execute("UPDATE docs SET body = 'new' WHERE id = 1")
        (late,) = replicated.primary.execute("SELECT nextval('freshvec.fence')").fetchone() or (0,)
        early = walk.draw_fence()
        assert early < late
        row = walk.read_page(10).rows[0]
        assert (row.key, row.text) == (("1",), "old"), "it is read from the replica"
        writer, (vector,) = TargetWriter(primary, bound), encoder.encode(encoder.tokenize(["new"]))
        new = Outcome(("1",), late, Fate.STORE, vector, b"n" * 16)
        old = Outcome(("1",), early, Fate.STORE, -vector, row.content_hash)
        with primary.transaction():
            writer.write([new])
            writer.write([old])
        found = replicated.primary.execute("SELECT fence FROM docs_embedding WHERE id = 1").fetchone()
        assert found == (late,)


def test_a_replica_that_does_not_know_of_the_owner_is_not_asked(replicated: Replicated) -> None:
    """The one before had no replica, and so left nothing of rows that were emptied while it walked."""
    settings, encoder = replicated.settings(), NullEncoder()
    backfill(settings, encoder)
    with (
        connect(settings.database.url, "test") as primary,
        connect(settings.database.replica, "test") as standby,
    ):
        bound = bound_sync(primary, settings, encoder)
        owner = take(primary, "docs", bound.generation)
        Backfill(primary, bound, owner).restart()
        replicated.primary.execute("SELECT nextval('freshvec.fence') FROM generate_series(1, 100)")
        replicated.catch_up()
        replicated.hold_back()
        replica = Replica(standby)
        begun = primary.execute("SELECT walk_fence FROM freshvec.sync").fetchone() or (0,)
        assert (replica.fence() or 0) > begun[0], "it does know of the walk"
        walk = Backfill(primary, bound, owner, replica)
        (last,) = replicated.primary.execute("SELECT last_value FROM freshvec.fence").fetchone() or (0,)
        assert walk.draw_fence() == last + 1, "the primary's"


def test_a_walk_counts_as_an_older_reading_until_its_last_page(replicated: Replicated) -> None:
    """Before its first page, too: that may wait, while rows are emptied and the standby lags."""
    settings, encoder = replicated.settings(), NullEncoder()
    backfill(settings, encoder)
    change = Portion(Urgency.LIVE, 10**6, 1)
    with (
        connect(settings.database.url, "test") as primary,
        connect(settings.database.replica, "test") as standby,
        ThreadPoolExecutor(1) as threads,
    ):
        bound = bound_sync(primary, settings, encoder)
        owner = take(primary, "docs", bound.generation)

        def walker(ledger: Ledger) -> Walker:
            dispatcher = Dispatcher(encoder, BatchBudget(64, fixed=True))
            replica = Replica(standby)

            def write(page: Portion, rows: list[SourceRow]) -> None:
                ledger.settle([Ready(page, [Outcome(row.key, page.fence, Fate.KEEP) for row in rows])])

            given = (primary, bound, dispatcher, settings.daemon, ledger, owner, threads, Stages())
            return Walker(*given, page_rows=100, handle=write, replica=replica)

        begins, goes_on = Ledger(), Ledger()
        first = walker(begins)
        assert not begins.has_older(change)
        first.restart()
        assert begins.has_older(change)
        second = walker(goes_on)
        assert goes_on.has_older(change)
        while not second.is_over:
            second.step()
        assert not goes_on.has_older(change)


class AtTexts(NullEncoder):
    """Does something when a text is made tokens for the first time."""

    def __init__(self, **meanwhile: Callable[[], None]) -> None:
        super().__init__()
        self._meanwhile = meanwhile

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        for text in texts:
            self._meanwhile.pop(text, lambda: None)()
        return super().tokenize(texts)


class Walked:
    """A walk in pages of 20 rows, one of which is emptied. From page 8 on pages come from the standby, which
    shows how it was before that: as when it was not to be had for a while."""

    EMPTIED = 290

    def __init__(self, replicated: Replicated, monkeypatch: pytest.MonkeyPatch) -> None:
        self.replicated = replicated
        self.primary = replicated.primary
        self.pages: list[Page] = []
        self.encoder = AtTexts(row1=self.empty, row101=self.wait)
        self._is_to_be_had = threading.Event()
        read, fence = Backfill.read_page, Replica.fence

        def reading(walk: Backfill, limit: int) -> Page:
            self.pages.append(read(walk, limit))
            return self.pages[-1]

        def drawing(replica: Replica) -> int | None:
            return fence(replica) if self._is_to_be_had.is_set() else None

        monkeypatch.setattr(Backfill, "read_page", reading)
        monkeypatch.setattr(Replica, "fence", drawing)

    def empty(self) -> None:
        """While the first page is made tokens."""
        self.primary.execute("SELECT nextval('freshvec.fence') FROM generate_series(1, 100)")
        self.replicated.catch_up()
        self.replicated.hold_back()
        self.primary.execute("UPDATE docs SET body = NULL WHERE id = %s", (self.EMPTIED,))

    def wait(self) -> None:
        """While the sixth page is: what was read before is written."""
        passed = "SELECT backfill_after[1]::int >= 100 FROM freshvec.sync"
        until("five pages are written", lambda: self.primary.execute(passed).fetchone() == (True,))
        assert count(self.primary, "freshvec.queue_docs") == 0, "so is the emptied row"
        self._is_to_be_had.set()

    def run(self) -> None:
        settings = self.replicated.settings(page_rows=20)
        with running(settings, self.encoder) as worker:
            wait_fresh(worker)
            last = [row for page in self.pages for row in page.rows if row.key == (str(self.EMPTIED),)]
            assert last[0].text == f"row{self.EMPTIED}", "it is read as it was"
            assert stale(self.primary, NullEncoder()) == []
            left = f"docs_embedding WHERE id = {self.EMPTIED}"
            until("nothing is left of it", lambda: count(self.primary, left) == 0)


@pytest.mark.parametrize("why", ["first fill", "asked", "proof"])
def test_a_page_of_before_a_row_was_emptied_does_not_bring_it_back(
    replicated: Replicated, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why != "first fill":
        backfill(replicated.settings(), NullEncoder())
    replicated.primary.execute("UPDATE docs SET body = 'row' || id")
    if why != "first fill":
        replicated.primary.execute("DELETE FROM freshvec.queue_docs")
    if why == "asked":
        replicated.primary.execute("SELECT freshvec.ask_for_walk('docs', 'test')")
    if why == "proof":
        replicated.primary.execute("UPDATE freshvec.sync SET proven_at = now() - interval '2 days'")
    Walked(replicated, monkeypatch).run()


def test_a_table_is_filled_from_a_replica_that_lags_and_edits_beside_it_stay(replicated: Replicated) -> None:
    """All the while the standby stands still, and goes on."""
    encoder = NullEncoder(seconds_a_batch=0.02)
    replicated.primary.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(301, 6000) g")
    reads = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'freshvec walk'"
    with running(replicated.settings(), encoder) as worker:
        until("it is asked", lambda: replicated.standby.execute(reads).fetchone() != (0,))
        for turn in range(30):
            replicated.standby.execute(f"SELECT pg_wal_replay_{'pause' if turn % 2 else 'resume'}()".encode())
            rows = (f"turn {turn}", turn * 7 % 11)
            replicated.primary.execute("UPDATE docs SET body = body || %s WHERE id %% 11 = %s", rows)
            replicated.primary.execute("DELETE FROM docs WHERE id %% 101 = %s", (turn,))
            if turn == 15:
                replicated.primary.execute("SELECT freshvec.ask_for_walk('docs', 'once more')")
        replicated.standby.execute("SELECT pg_wal_replay_resume()")
        wait_fresh(worker)
    assert stale(replicated.primary, NullEncoder()) == []


def test_without_it_the_primary_is_read(replicated: Replicated) -> None:
    away = "postgresql://postgres@127.0.0.1:1/postgres"
    backfill(replicated.settings(away), NullEncoder())
    assert stale(replicated.primary, NullEncoder()) == []
