"""Walks that read from a replica: what it does not show yet is not undone, and where it is away the primary
is read."""

from collections.abc import Iterator

import psycopg
import pytest

from freshvec.config import Settings
from freshvec.db import connect
from freshvec.pipeline.epoch import take
from freshvec.records import Fate, Outcome
from freshvec.scans.backfill import Backfill
from freshvec.scans.replica import Replica
from freshvec.target.upsert import TargetWriter
from tests.staleness import stale
from tests.standby import Standby, server_with_docs
from tests.support import (
    Connection,
    NullEncoder,
    backfill,
    bound_sync,
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

    def settings(self, replica: str | None = None) -> Settings:
        url = self.primary.info.dsn
        settings = settings_for(url, sync_of("docs"), sweep_seconds=600, page_rows=100)
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
