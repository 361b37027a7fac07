"""Order of work, exactness of the queue, and what status and verify say."""

import threading
from functools import partial
from operator import contains
from pathlib import Path
from typing import Any

import psycopg
import pytest

from freshvec.db import connect
from freshvec.health import status
from freshvec.records import Tokens, Vector
from freshvec.scans.verify import verify
from tests.staleness import stale
from tests.support import (
    Connection,
    NullEncoder,
    bound_sync,
    content_hash,
    count,
    exists,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
)

HASH = "SELECT content_hash FROM docs_embedding WHERE id = %s"


def fill(docs: Connection, count: int) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, %s) g", (count,))


def is_fresh(docs: Connection, row: int, text: str) -> bool:
    return docs.execute(HASH, (row,)).fetchone() == (content_hash(text),)


def embedded(docs: Connection) -> int:
    return count(docs, "docs_embedding")


def test_a_live_change_overtakes_the_backfill(url: str, docs: Connection) -> None:
    fill(docs, 5000)
    with running(settings_for(url, sync_of("docs"), batch_tokens=64), NullEncoder(0.05)) as worker:
        until("the backfill has begun", lambda: exists(docs, "docs_embedding") and embedded(docs))
        docs.execute("UPDATE docs SET body = 'urgent' WHERE id = 4999")
        until("the edit is fresh", lambda: is_fresh(docs, 4999, "urgent"))
        assert embedded(docs) < 4500, "the edit came only after the backfill"
        assert worker.keepers[0].pipeline is not None
        assert not worker.keepers[0].is_fresh


def test_a_small_change_overtakes_a_bulk_one(url: str, docs: Connection) -> None:
    fill(docs, 5000)
    encoder = NullEncoder()
    with running(settings_for(url, sync_of("docs"), batch_tokens=64), encoder) as worker:
        wait_fresh(worker)
        encoder.seconds_a_batch = 0.05
        docs.execute("UPDATE docs SET body = body || ' burst' WHERE id <= 4000")
        docs.execute("UPDATE docs SET body = 'urgent' WHERE id = 4500")
        until("the edit is fresh", lambda: is_fresh(docs, 4500, "urgent"))
        assert not is_fresh(docs, 4000, "text 4000 burst")
        encoder.seconds_a_batch = 0
        until("the burst is fresh", lambda: is_fresh(docs, 4000, "text 4000 burst"))


def test_a_change_committed_late_with_a_lower_number_is_found(url: str, docs: Connection) -> None:
    fill(docs, 10)
    settings = settings_for(url, sync_of("docs"))
    with running(settings, NullEncoder()) as worker, psycopg.connect(url) as slow:
        wait_fresh(worker)
        slow.execute("UPDATE docs SET body = 'late' WHERE id = 1")
        for number in range(50):
            docs.execute("UPDATE docs SET body = %s WHERE id = 2", (f"early {number}",))
        until("the early one is fresh", lambda: is_fresh(docs, 2, "early 49"))
        slow.commit()
        until("the late one is fresh", lambda: is_fresh(docs, 1, "late"))
        until("the queue is empty", lambda: count(docs, "freshvec.queue_docs") == 0)


def test_equal_texts_are_encoded_once(url: str, docs: Connection) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'the same ' || g %% 3 FROM generate_series(1, 300) g", ())
    encoder = NullEncoder()
    with running(settings_for(url, sync_of("docs")), encoder) as worker:
        wait_fresh(worker)
        assert embedded(docs) == 300
        assert encoder.encoded == 3
        docs.execute("UPDATE docs SET body = 'other' WHERE id = 1")
        until("the edit is fresh", lambda: is_fresh(docs, 1, "other"))
        docs.execute("UPDATE docs SET body = 'the same 1' WHERE id = 1")
        until("the old text is back", lambda: is_fresh(docs, 1, "the same 1"))
        assert encoder.encoded == 4


def test_a_text_that_changed_back_costs_nothing_but_raises_the_fence(url: str, docs: Connection) -> None:
    fill(docs, 3)
    encoder = NullEncoder()
    settings = settings_for(url, sync_of("docs"))
    with running(settings, encoder) as worker:
        wait_fresh(worker)
    before = docs.execute("SELECT fence FROM docs_embedding WHERE id = 1").fetchone()
    docs.execute("UPDATE docs SET body = 'detour' WHERE id = 1")
    docs.execute("UPDATE docs SET body = 'text 1' WHERE id = 1")
    with running(settings, encoder) as worker:
        wait_fresh(worker)
    assert encoder.encoded == 3
    after = docs.execute("SELECT fence FROM docs_embedding WHERE id = 1").fetchone()
    assert before is not None
    assert after is not None
    assert after[0] > before[0]


def test_status_says_what_is(url: str, docs: Connection) -> None:
    fill(docs, 100)
    settings = settings_for(url, sync_of("docs"))
    with running(settings, NullEncoder()) as worker:
        wait_fresh(worker)
        docs.execute("UPDATE docs SET body = 'new' WHERE id = 1")
        until("the edit is fresh", lambda: is_fresh(docs, 1, "new"))

        def measured() -> bool:  # a lag is noted just after the commit that the edit is seen by
            worker.housekeep()
            return read_status(settings)["lag_p50_ms"] is not None

        until("the lag is measured", measured)
        row = read_status(settings)
        assert row["owner_pid"] is not None
    counted = {name: row[name] for name in ("rows_total", "rows_fresh", "rows_failed", "backlog", "coverage")}
    assert counted == {"rows_total": 100, "rows_fresh": 100, "rows_failed": 0, "backlog": 0, "coverage": 1}
    assert row["oldest_unfresh_seconds"] is None
    assert row["eta_seconds"] == 0
    assert 0 < row["lag_p50_ms"] <= row["lag_p99_ms"] < 60_000
    assert status.is_fresh(row)
    docs.execute("UPDATE docs SET body = 'waiting' WHERE id <= 30")
    row = read_status(settings)
    assert row["owner_pid"] is None
    assert row["backlog"] == 30
    assert row["coverage"] == pytest.approx(0.7)
    assert row["oldest_unfresh_seconds"] > 0
    assert not status.is_fresh(row)


def read_status(settings: Any) -> dict[str, Any]:
    with connect(settings.database.url, "test") as connection:
        return status.read(connection)[0]


def test_verify_finds_what_triggers_missed_and_repair_heals_it(url: str, docs: Connection) -> None:
    fill(docs, 60)
    settings = settings_for(url, sync_of("docs"))
    encoder = NullEncoder()
    with running(settings, encoder) as worker, connect(settings.database.url, "test") as connection:
        wait_fresh(worker)
        bound = bound_sync(connection, settings, encoder)
        assert verify(connection, bound).is_fresh
        docs.execute("ALTER TABLE docs DISABLE TRIGGER ALL")
        docs.execute("UPDATE docs SET body = 'behind our back' WHERE id = 1")
        docs.execute("INSERT INTO docs VALUES (1000, 'unseen')")
        docs.execute("DELETE FROM docs WHERE id IN (2, 3)")
        docs.execute("SET freshvec.is_ours = on")  # or it would be noticed
        docs.execute("UPDATE docs_embedding SET embedding = NULL WHERE id = 5")
        docs.execute("ALTER TABLE docs ENABLE TRIGGER ALL")
        report = verify(connection, bound)
        assert report.problems == {"different": 1, "missing": 2, "orphaned": 2}
        assert report.examples["orphaned"] == [("2",), ("3",)]
        verify(connection, bound, repair=True)
        until("it is healed", lambda: verify(connection, bound).is_fresh)


def test_one_broken_sync_does_not_keep_another_from_being_fresh(url: str, docs: Connection) -> None:
    fill(docs, 5)
    docs.execute("CREATE TABLE other (id int PRIMARY KEY, body text)")
    settings = settings_for(url, sync_of("docs"), sync_of("other", name="other"))
    with running(settings, NullEncoder()) as worker:
        wait_fresh(worker)
        docs.execute("ALTER TABLE other DROP COLUMN body")
        docs.execute("INSERT INTO other VALUES (1)")
        until("the broken one is in trouble", lambda: worker.keepers[1].last_error)
        docs.execute("UPDATE docs SET body = 'still kept' WHERE id = 1")
        until("the other is fresh", lambda: is_fresh(docs, 1, "still kept"))
        assert "other" in str(worker.keepers[1].last_error)


def test_two_workers_share_nothing_and_the_second_takes_over(url: str, docs: Connection) -> None:
    fill(docs, 5)
    settings = settings_for(url, sync_of("docs"))
    with running(settings, NullEncoder()) as first:
        wait_fresh(first)
        with running(settings, NullEncoder()) as second:
            until("the second stands by", lambda: second.keepers[0].stands_by)
            assert second.keepers[0].pipeline is None
            threading.Thread(target=first.stop).start()
            wait_fresh(second)
            docs.execute("UPDATE docs SET body = 'second hand' WHERE id = 1")
            until("the second keeps it fresh", lambda: is_fresh(docs, 1, "second hand"))


def test_a_worker_that_has_ended_leaves_no_file_open(url: str, docs: Connection) -> None:
    settings = settings_for(url, sync_of("docs"))
    opened = []
    for _ in range(3):
        with running(settings, NullEncoder()) as worker:
            wait_fresh(worker)
        opened.append(len(list(Path("/proc/self/fd").iterdir())))
    assert opened[2] == opened[1]


class Held(NullEncoder):
    """Encodes nothing until it may go on; what was tokenised is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()
        self.tokenized: list[str] = []

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        self.tokenized += texts
        return super().tokenize(texts)

    def encode(self, batch: list[Tokens]) -> Vector:
        self.go_on.wait(60)
        return super().encode(batch)


def test_a_row_that_changes_all_the_time_is_not_read_for_each_change(url: str, docs: Connection) -> None:
    docs.execute("INSERT INTO docs SELECT g FROM generate_series(1, 6) g")
    encoder = Held()
    with running(settings_for(url, sync_of("docs")), encoder) as worker:
        wait_fresh(worker)
        for turn in range(5):
            docs.execute("UPDATE docs SET body = %s WHERE id = 1", (f"hot {turn}",))
            docs.execute("UPDATE docs SET body = %s WHERE id = %s", (f"other {turn}", 2 + turn))
            until("what came after it is read", partial(contains, encoder.tokenized, f"other {turn}"))
        encoder.go_on.set()
        wait_fresh(worker)
        assert [text for text in encoder.tokenized if text.startswith("hot")] == ["hot 0", "hot 1", "hot 4"]
        assert stale(docs, encoder) == []
