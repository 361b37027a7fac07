"""A backfill that is run once outlives its connections, and ends where none is to be had any more."""

import threading

import psycopg
import pytest

from freshvec.backoff import Backoff
from freshvec.embedded import EmbeddedPostgres
from freshvec.errors import DatabaseError
from freshvec.worker.keeper import Keeper
from freshvec.worker.worker import Worker
from tests.integration.stepwise import HeldEncoder
from tests.staleness import stale
from tests.support import Connection, NullEncoder, running, settings_for, sync_of, until

CUT = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
 WHERE application_name LIKE 'freshvec %' AND datname = current_database()
"""
NOBODY = "the one-time worker has ended"


def quickly(backoff: Backoff) -> float:
    backoff.attempts += 1
    return 0.01


def has_ended() -> bool:
    return not any(thread.name == "worker" for thread in threading.enumerate())


def test_cut_connections_are_made_again(url: str, docs: Connection) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 300) g")
    encoder = HeldEncoder()
    settings = settings_for(url, sync_of("docs"), page_rows=50)
    with encoder.holding(), running(settings, encoder, once=True):
        until("a page is being encoded", encoder.is_held.is_set)
        assert docs.execute(CUT).fetchone() != (0,)
        encoder.free()
        until(NOBODY, has_ended)
    assert stale(docs, encoder) == []


def test_it_ends_as_soon_as_all_is_fresh(url: str, docs: Connection) -> None:
    """Not when its main loop looks again, which may be seconds later."""
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 100) g")
    settings, encoder = settings_for(url, sync_of("docs"), sweep_seconds=3600), NullEncoder(0.01)
    worker = Worker(settings, settings.sync, once=True, load=lambda _: encoder, tick_seconds=3600)
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    until("it has ended", lambda: not thread.is_alive())
    assert stale(docs, encoder) == []


def test_it_ends_where_it_looked_again_meanwhile(url: str, docs: Connection) -> None:
    """The main loop has its pipeline look again, as when it takes the bell, just as it is told that all is
    fresh: it is told once more."""
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 100) g")
    settings, encoder = settings_for(url, sync_of("docs"), sweep_seconds=3600), NullEncoder(0.01)
    looks: list[None] = []

    def look_again(keepers: list[Keeper]) -> None:
        pipeline = keepers[0].pipeline
        if pipeline is not None and pipeline.fresh.is_set() and len(looks) < 3:
            looks.append(None)
            pipeline.look()

    worker = Worker(
        settings, settings.sync, once=True, load=lambda _: encoder, tick_seconds=3600, on_tick=look_again
    )
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    until("it has ended", lambda: not thread.is_alive())
    assert looks  # the last of three may be answered before the main loop asks whether all is done
    assert stale(docs, encoder) == []


def test_a_server_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "next_delay", quickly)
    with EmbeddedPostgres(18, fsync="off") as server:
        with psycopg.connect(server.url(), autocommit=True) as docs:
            docs.execute("CREATE EXTENSION vector; CREATE TABLE docs (id bigint PRIMARY KEY, body text)")
            docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 300) g")
        with pytest.raises(DatabaseError, match="cannot connect"):
            _backfill_of_a_server_that_goes(server)
        server.start()


def _backfill_of_a_server_that_goes(server: EmbeddedPostgres) -> None:
    encoder = HeldEncoder()
    with encoder.holding(), running(settings_for(server.url(), sync_of("docs")), encoder, once=True):
        until("a page is being encoded", encoder.is_held.is_set)
        server.run("pg_ctl", "-D", str(server.data), "-m", "immediate", "-w", "stop")
        encoder.free()
        until(NOBODY, has_ended)
