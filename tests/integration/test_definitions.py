"""Definitions: a newer one is never undone by an older worker, and what is shown is of one model at any
moment."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from freshvec.db import connect
from freshvec.errors import FreshvecError
from freshvec.records import Model, Tokens, Vector
from freshvec.schema.apply import apply, remove
from freshvec.worker.worker import Worker
from tests.integration.at_rest import Kept
from tests.support import MODEL, NullEncoder, count, exists, running, sync_of, until, wait_fresh

OTHER = b"another model 00"
OFTEN = {"batch_tokens": 400, "page_rows": 100, "commit_every_seconds": 0.05}


class Gated(NullEncoder):
    """Encodes so many texts, and then no more until it may go on."""

    def __init__(self, texts: int) -> None:
        super().__init__()
        self._at_first = texts
        self.go_on = threading.Event()

    def encode(self, batch: list[Tokens]) -> Vector:
        if self.encoded >= self._at_first:
            self.go_on.wait(60)
        return super().encode(batch)


@pytest.fixture
def many(kept: Kept) -> Kept:
    """2,000 rows with a title, written in many transactions."""
    kept.app.execute("ALTER TABLE docs ADD title text")
    kept.app.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(51, 2000) g")
    kept.app.execute("UPDATE docs SET title = 'title ' || id")
    kept.daemon = OFTEN
    return kept


def newer(kept: Kept, change: str) -> Kept:
    """The same table, declared otherwise."""
    encoder = NullEncoder()
    sync, text = kept.sync, kept.text
    if change == "model":
        encoder.fingerprint = OTHER
    else:
        sync, text = sync_of("docs", columns=["title", "body"]), "concat_ws(E'\\n', title, body)"
    return Kept(kept.url, kept.app, sync, encoder, text=text, daemon=kept.daemon)


def apply_now(kept: Kept) -> None:
    """What the command `freshvec apply` does."""
    model = Model(MODEL, 8, 256, kept.encoder.fingerprint)
    with connect(kept.settings.database.url, "apply") as connection:
        apply(connection, kept.settings.sync[0], model)


def state(kept: Kept) -> tuple[Any, ...]:
    row = kept.app.execute("SELECT definition, backfill_done, backfill_after FROM freshvec.sync").fetchone()
    assert row is not None
    return row


def versions(kept: Kept) -> list[tuple[Any, ...]]:
    return kept.app.execute("SELECT id, xmin::text, ctid::text FROM docs_embedding ORDER BY id").fetchall()


@contextmanager
def half_way(kept: Kept) -> Iterator[tuple[Worker, Gated]]:
    """A worker in the middle of its first walk, which goes on when its encoder may."""
    encoder = Gated(600)
    with running(kept.settings, encoder) as worker:
        try:
            until("its sync is there", lambda: exists(kept.app, "docs_embedding"))
            until("some pages are written", lambda: state(kept)[2] is not None)
            until("it waits", lambda: encoder.encoded >= 600)
            yield worker, encoder
        finally:
            encoder.go_on.set()


def says_so(kept: Kept) -> bool:
    return "another definition" in str(kept.status()["last_error"])


@pytest.mark.parametrize("change", ["columns", "model"])
def test_an_older_worker_writes_nothing_over_a_newer_definition(many: Kept, change: str) -> None:
    after = newer(many, change)
    with half_way(many) as (worker, encoder):
        apply_now(after)
        applied, written = state(many), versions(many)
        assert applied[1:] == (False, None)
        encoder.go_on.set()
        until("it says why it stops", lambda: says_so(many))
        worker.sweep()
        until("its pipeline is gone", lambda: worker.keepers[0].pipeline is None)
        assert versions(many) == written
        assert state(many) == applied
        with after.running() as heir:
            after.comes_to_rest(heir)
            assert after.encoder.encoded > 1990, "a new definition is walked whole"
            assert versions(many) != written


@pytest.mark.parametrize("change", ["columns", "model"])
def test_an_older_worker_at_rest_gives_way_at_its_next_sweep(many: Kept, change: str) -> None:
    after = newer(many, change)
    with many.running() as worker:
        apply_now(after)
        applied = state(many)
        worker.sweep()
        until("it says why it stops", lambda: says_so(many))
        many.app.execute("UPDATE docs SET body = 'for the new one' WHERE id = 5")
        with after.running() as heir:
            assert state(many)[0] == applied[0]
            after.comes_to_rest(heir)


def test_an_older_worker_whose_connections_were_cut_undoes_nothing(many: Kept) -> None:
    after = newer(many, "columns")
    with many.running() as worker:
        apply_now(after)
        applied = state(many)
        cut(many)
        until("it says why it stops", lambda: says_so(many))
        cut(many)
        worker.sweep()
        until("it has come back", lambda: connected(many))
        until("it says so again", lambda: says_so(many) and worker.keepers[0].pipeline is None)
        assert state(many) == applied
        with after.running() as heir:
            after.comes_to_rest(heir)


def cut(kept: Kept) -> None:
    kept.app.execute(
        """SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
            WHERE application_name LIKE 'freshvec%' AND datname = current_database()"""
    )


def connected(kept: Kept) -> bool:
    where = "application_name = 'freshvec listener' AND datname = current_database()"
    return bool(count(kept.app, f"pg_stat_activity WHERE {where}"))


def test_who_stands_by_with_another_file_applies_only_once_it_owns(many: Kept) -> None:
    after = newer(many, "columns")
    with many.running() as worker:
        applied = state(many)
        with running(after.settings, after.encoder) as standby:
            until("it stands by", lambda: standby.keepers[0].stands_by)
            standby.sweep()
            many.comes_to_rest(worker)
            assert standby.keepers[0].pipeline is None
            assert state(many) == applied
            assert after.encoder.encoded == 0
            threading.Thread(target=worker.stop).start()
            wait_fresh(standby)
            assert state(many)[0] != applied[0]
            after.comes_to_rest(standby)


def test_who_stands_by_with_the_older_file_never_applies_it(many: Kept) -> None:
    """It read its file before the newer definition was applied, and comes to own the sync after."""
    after = newer(many, "columns")
    with many.running() as worker, running(many.settings, NullEncoder()) as standby:
        until("it stands by", lambda: standby.keepers[0].stands_by)
        apply_now(after)
        applied = state(many)
        threading.Thread(target=worker.stop).start()
        until("the first is gone", lambda: not worker.keepers[0].pipeline)
        says = "another definition"
        until("the other says why", lambda: says in str(standby.keepers[0].trouble))
        assert state(many) == applied
        assert standby.keepers[0].pipeline is None


def test_the_view_shows_one_model_at_any_moment_and_status_how_far_it_is(many: Kept) -> None:
    with many.running():
        pass
    after = newer(many, "model")
    after.encoder = Gated(800)
    after.encoder.fingerprint = OTHER
    shown = """SELECT count(*), count(*) FILTER (WHERE t.fingerprint = %s)
                 FROM docs_embedded v JOIN docs_embedding t USING (id)"""
    with running(after.settings, after.encoder):
        until("half is of the new model", lambda: after.encoder.encoded >= 800)
        kept_model = "docs_embedding WHERE fingerprint = 'another model 00'"
        until("some of it is written", lambda: count(many.app, kept_model) >= 500)
        seen = many.app.execute(shown, (OTHER,)).fetchone()
        assert seen is not None
        assert 0 < seen[0] == seen[1] < 2000
        row = after.status()
        assert 0 < row["coverage"] < 1
        assert not row["backfill_done"]
        after.encoder.go_on.set()
        after.comes_to_rest()
        seen = many.app.execute(shown, (OTHER,)).fetchone()
        assert seen == (count(many.app, "docs WHERE body <> ''"),) * 2


def test_remove_refuses_while_a_worker_owns_the_sync(kept: Kept) -> None:
    with kept.running(), connect(kept.settings.database.url, "remove") as connection:
        with pytest.raises(FreshvecError, match="a running worker keeps it") as refused:
            remove(connection, "docs")
        assert "stop it" in refused.value.remedy
        kept.comes_to_rest()
    with connect(kept.settings.database.url, "remove") as connection:
        assert remove(connection, "docs")
    assert not exists(kept.app, "docs_embedding")
    assert count(kept.app, "freshvec.sync") == 0
