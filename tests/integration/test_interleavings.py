"""One interleaving at a time: transactions that commit late, readings written late, owners that come late.

Some are plain functions, so that tests/acceptance/test_mutations.py can run them against a core that lacks
what they are about.
"""

import threading
from collections.abc import Callable

import pytest

from freshvec.errors import SupersededError
from freshvec.pipeline.ledger import Ledger, Portion, Ready
from freshvec.records import Entry, Fate, Tokens, Urgency
from freshvec.scans.backfill import Backfill, Page
from tests.integration.stepwise import KEY, Bench, HeldEncoder, drain, flush, outcome
from tests.staleness import stale
from tests.support import Connection, NullEncoder, count, running, settings_for, sync_of, until, wait_fresh


@pytest.fixture
def bench(docs: Connection) -> Bench:
    return Bench(docs)


# Where the queue is read from.


def a_change_that_commits_late_is_read(bench: Bench, *, has_later_id: bool) -> None:
    """Its transaction's id is lower or higher than that of one which has ended before."""
    with bench.reader() as reader, bench.session() as slow, bench.session() as quick:
        for session in (quick, slow) if has_later_id else (slow, quick):
            session.execute("SELECT pg_current_xact_id()")
        bench.edit("slow", row=1, session=slow)
        bench.edit("quick", row=2, session=quick)
        quick.commit()
        handed_out: list[Entry] = []
        assert drain(reader, handed_out) == [("2",)]
        slow.commit()
        assert drain(reader, handed_out) == [("1",)]


@pytest.mark.parametrize("has_later_id", [False, True])
def test_a_change_that_commits_late_is_read(bench: Bench, has_later_id: bool) -> None:
    a_change_that_commits_late_is_read(bench, has_later_id=has_later_id)


def test_what_is_handed_out_is_not_looked_at_again(bench: Bench) -> None:
    with bench.reader() as reader:
        bench.edit("edited")
        assert drain(reader, []) != []
        assert reader.is_empty(), "the snapshot that found nothing more saw the entry"


# Readings that are written late.


def an_older_reading_stays_out(bench: Bench) -> None:
    with bench.writer() as (writer, ledger, _):
        flush(writer, ledger, outcome(1002, text=b"newer"))
        flush(writer, ledger, outcome(1001, text=b"older"))
        assert bench.stored() == (b"newer", 1002)


def test_an_older_reading_stays_out(bench: Bench) -> None:
    an_older_reading_stays_out(bench)


def a_touch_does_not_hide_what_an_older_reading_wrote(bench: Bench) -> None:
    """A row was found unchanged, and then an older reading of another text was written."""
    with bench.writer() as (writer, ledger, _):
        flush(writer, ledger, outcome(1001, text=b"older"))
        flush(writer, ledger, outcome(1002, Fate.TOUCH, b"as it was"))
        assert bench.stored() == (b"older", 1001)
        assert count(bench.docs, "freshvec.queue_docs") == 1, "the row is to be read again"


def test_a_touch_does_not_hide_what_an_older_reading_wrote(bench: Bench) -> None:
    a_touch_does_not_hide_what_an_older_reading_wrote(bench)


def a_row_without_text_keeps_older_readings_out(bench: Bench) -> None:
    """Its text is emptied while its last one is being encoded, and the emptied row is written first."""
    encoder = HeldEncoder()
    with running(bench.settings, encoder) as worker:
        wait_fresh(worker)
        with encoder.holding():
            bench.edit("held")
            until("the text is being encoded", encoder.is_held.is_set)
            bench.edit(None)
            until("the emptied row is written", lambda: (bench.stored() or (None,))[0] is None)
            queued = "freshvec.queue_docs"
            until("and answered", lambda: count(bench.docs, queued) <= 1)
        wait_fresh(worker)
        assert stale(bench.docs, encoder) == []
        assert bench.stored() is None, "nothing lasting is left of a row without text"


def test_a_row_without_text_keeps_older_readings_out(bench: Bench) -> None:
    a_row_without_text_keeps_older_readings_out(bench)


def test_a_walk_that_finds_a_row_unchanged_keeps_an_older_reading_of_it_out(bench: Bench) -> None:
    """A text is being encoded when it is taken back, and only a walk hears of that."""
    encoder = HeldEncoder()
    with running(bench.settings, encoder) as worker:
        wait_fresh(worker)
        with encoder.holding():
            bench.edit("taken back")
            until("the text is being encoded", encoder.is_held.is_set)
            with bench.session() as session:
                bench.edit_unnoted("text 1", session)
            walked = bench.docs.execute("SELECT proven_at FROM freshvec.sync").fetchone()
            bench.docs.execute("SELECT freshvec.ask_for_walk('docs', 'test')")
            query = "SELECT proven_at IS DISTINCT FROM %s FROM freshvec.sync"
            until("the walk is over", lambda: bench.docs.execute(query, walked).fetchone() == (True,))
        wait_fresh(worker)
        assert stale(bench.docs, encoder) == []


class AtFirstPage(NullEncoder):
    """Does something once, while the first page of a walk is tokenised."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__()
        self._meanwhile: Callable[[], None] | None = meanwhile

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile:
            meanwhile()
        return super().tokenize(texts)


def test_a_page_read_ahead_does_not_overtake_what_was_emptied_since(
    docs: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second page of the first walk is read, and one of its rows is emptied before it is written."""
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 40) g")
    pages: list[Page] = []
    read = Backfill.read_page

    def reading(walk: Backfill, limit: int) -> Page:
        page = read(walk, limit)
        pages.append(page)
        return page

    monkeypatch.setattr(Backfill, "read_page", reading)

    def meanwhile() -> None:
        until("the second page is read", lambda: len(pages) == 2)
        docs.execute("UPDATE docs SET body = NULL WHERE id = 25")

    encoder = AtFirstPage(meanwhile)
    with running(settings_for(docs.info.dsn, sync_of("docs"), page_rows=20), encoder) as worker:
        wait_fresh(worker)
        assert ("25",) in [row.key for row in pages[1].rows]
        assert stale(docs, encoder) == []


def test_what_is_read_ahead_counts_as_older_until_it_is_opened() -> None:
    ledger = Ledger()
    change, page = Portion(Urgency.LIVE, 11, 1), Portion(Urgency.BACKFILL, 10, 1, last_key=KEY)
    ledger.open(change)
    assert not ledger.has_older(change)
    ledger.expect(10)
    assert ledger.has_older(change)
    assert ledger.oldest_fence() == 10
    assert not ledger.has_older(Portion(Urgency.BACKFILL, 11, 1)), "pages have no row in common"
    ledger.open(page)
    ledger.expect(float("inf"))
    assert ledger.has_older(change)
    ledger.settle([Ready(page, [outcome(10)])])
    assert not ledger.has_older(change)
    assert ledger.oldest_fence() == 11


# Removals and owners.


def a_removal_sees_what_is_being_written(bench: Bench) -> None:
    """A row is deleted while its vector is written; who removes it waits for that, or leaves an orphan."""
    with bench.writer() as (storing, _, epoch), bench.writer(epoch) as (removing, ledger, _):
        thread = threading.Thread(target=flush, args=(removing, ledger, outcome(2000, Fate.REMOVE)))
        bench.docs.execute("DELETE FROM docs_embedding WHERE id = 1")
        with storing.transaction():
            storing.target.write([outcome(1000)])
            bench.docs.execute("DELETE FROM docs WHERE id = 1")
            thread.start()
            waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"
            until(
                "the removal waits or is over",
                lambda: not thread.is_alive() or bench.docs.execute(waits).fetchone() == (True,),
            )
        thread.join(60)
        assert count(bench.docs, "docs_embedding WHERE id = 1") == 0


def test_a_removal_sees_what_is_being_written(bench: Bench) -> None:
    a_removal_sees_what_is_being_written(bench)


def an_owner_of_another_time_writes_nothing(bench: Bench) -> None:
    with bench.writer() as (old, ledger, _), bench.writer():
        before = bench.stored()
        with pytest.raises(SupersededError):
            flush(old, ledger, outcome(5000))
        assert bench.stored() == before


def test_an_owner_of_another_time_writes_nothing(bench: Bench) -> None:
    an_owner_of_another_time_writes_nothing(bench)


def test_an_owner_begins_once_the_last_one_has_written(bench: Bench) -> None:
    """Nobody can take over between the look at the epoch and the commit."""
    with bench.writer() as (old, _, _):
        taken = threading.Event()

        def take_over() -> None:
            with bench.writer():
                taken.set()

        thread = threading.Thread(target=take_over)
        with old.transaction():
            thread.start()
            waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"
            until("the next one waits", lambda: bench.docs.execute(waits).fetchone() == (True,))
            assert not taken.is_set()
        thread.join(60)
        assert taken.is_set()
