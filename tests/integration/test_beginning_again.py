"""A sync that is stopped, or begins again: nothing is encoded twice that need not be."""

import threading

from freshvec.records import Tokens, Vector
from tests.integration.test_live import embedded, fill
from tests.support import Connection, NullEncoder, exists, running, settings_for, sync_of, until, wait_fresh


class Halting(NullEncoder):
    """Encodes so many texts, and then no more until it may go on."""

    def __init__(self, texts: int) -> None:
        super().__init__()
        self._texts_at_first = texts
        self.go_on = threading.Event()

    def encode(self, batch: list[Tokens]) -> Vector:
        if self.encoded >= self._texts_at_first:
            self.go_on.wait(60)
        return super().encode(batch)


def test_a_backfill_goes_on_where_it_stopped(url: str, docs: Connection) -> None:
    fill(docs, 2000)
    often = {"batch_tokens": 400, "page_rows": 100, "commit_every_seconds": 0.05}
    settings = settings_for(url, sync_of("docs"), **often)
    halting = Halting(600)
    checkpoint = "SELECT backfill_after[1]::int FROM freshvec.sync"
    with running(settings, halting) as worker:
        until("its sync is there", lambda: exists(docs, "docs_embedding"))
        until("some pages are written", lambda: docs.execute(checkpoint).fetchone() != (None,))
        worker.stop()
        until("it has stopped", lambda: worker.keepers[0].pipeline is None)
        halting.go_on.set()
    reached = docs.execute("SELECT backfill_after[1]::int, backfill_done FROM freshvec.sync").fetchone()
    assert reached is not None
    assert 0 < reached[0] < 2000
    assert not reached[1]
    done = embedded(docs)
    quick = NullEncoder()
    with running(settings, quick) as worker:
        wait_fresh(worker)
    assert embedded(docs) == 2000
    assert quick.encoded == 2000 - done, "rows that were written are not encoded again"


def test_what_a_pipeline_that_has_ended_had_read_is_not_encoded(url: str, docs: Connection) -> None:
    fill(docs, 2000)
    halting = Halting(0)
    with running(settings_for(url, sync_of("docs"), batch_tokens=64), halting) as worker:
        (dispatcher,) = worker.dispatchers.values()
        until("batches wait", lambda: dispatcher.waiting > 5)
        ended = worker.keepers[0].pipeline
        docs.execute("ALTER TABLE docs DISABLE TRIGGER USER")
        worker.sweep()

        def another_has_read() -> bool:
            pipeline = worker.keepers[0].pipeline
            return pipeline not in (None, ended) and pipeline.ledger.in_flight() == 2000

        until("another has read the same", another_has_read)
        halting.go_on.set()
        wait_fresh(worker)
    assert halting.encoded <= 2000 + 64, "no more of what the first one had read than the batch in hand"


class Amid(NullEncoder):
    """Whoever tokenises first is held up amid its page."""

    def __init__(self) -> None:
        super().__init__()
        self.is_amid, self.go_on = threading.Event(), threading.Event()

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        if not self.is_amid.is_set():
            self.is_amid.set()
            self.go_on.wait(60)
        return super().tokenize(texts)


def test_what_a_pipeline_brings_that_has_ended_is_not_encoded(url: str, docs: Connection) -> None:
    """On a busy machine it is not waited for until its page is read."""
    fill(docs, 2000)
    amid = Amid()
    with running(settings_for(url, sync_of("docs")), amid) as worker:
        assert amid.is_amid.wait(60)
        ended = worker.keepers[0].pipeline
        docs.execute("ALTER TABLE docs DISABLE TRIGGER USER")
        worker.sweep()
        until("another has begun", lambda: worker.keepers[0].pipeline not in (None, ended))
        amid.go_on.set()
        wait_fresh(worker)
        assert ended is not None
        until("the first one has read its page", lambda: not ended.beat())
        (dispatcher,) = worker.dispatchers.values()
        until("nothing waits", lambda: not dispatcher.waiting)
    assert amid.encoded == 2000
