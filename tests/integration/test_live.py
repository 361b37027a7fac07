"""Order of work, exactness of the queue, and what status and verify say."""

import threading
from typing import Any

import psycopg
import pytest

from freshvec.db import connect
from freshvec.health import status
from freshvec.records import Model
from freshvec.scans import verify
from freshvec.schema import plan as schema
from tests.support import Connection, NullEncoder, serving, settings_for, sync_of, until, wait_fresh

HASH = "SELECT content_hash = substring(sha256(%s) FROM 1 FOR 16) FROM docs_embedding WHERE id = %s"


def fill(docs: Connection, count: int) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, %s) g", (count,))


def is_fresh(docs: Connection, row: int, text: str) -> bool:
    return docs.execute(HASH, (text.encode(), row)).fetchone() == (True,)


def embedded(docs: Connection) -> int:
    found = docs.execute("SELECT count(*) FROM docs_embedding").fetchone()
    assert found is not None
    return int(found[0])


def test_a_live_change_overtakes_the_backfill(url: str, docs: Connection) -> None:
    fill(docs, 3000)
    with serving(settings_for(url, sync_of("docs"), batch_tokens=64), NullEncoder(0.02)) as service:
        until(
            "the backfill has begun",
            lambda: (
                docs.execute("SELECT to_regclass('docs_embedding')").fetchone() != (None,) and embedded(docs)
            ),
        )
        docs.execute("UPDATE docs SET body = 'urgent' WHERE id = 2999")
        until("the edit is fresh", lambda: is_fresh(docs, 2999, "urgent"))
        assert embedded(docs) < 2500, "the edit came only after the backfill"
        assert service.keepers[0].pipeline is not None
        assert not service.keepers[0].is_fresh


def test_a_small_change_overtakes_a_bulk_one(url: str, docs: Connection) -> None:
    fill(docs, 5000)
    encoder = NullEncoder()
    with serving(settings_for(url, sync_of("docs"), batch_tokens=64), encoder) as service:
        wait_fresh(service)
        encoder.seconds_a_batch = 0.02
        docs.execute("UPDATE docs SET body = body || ' burst' WHERE id <= 4000")
        docs.execute("UPDATE docs SET body = 'urgent' WHERE id = 4500")
        until("the edit is fresh", lambda: is_fresh(docs, 4500, "urgent"))
        assert not is_fresh(docs, 4000, "text 4000 burst")
        encoder.seconds_a_batch = 0
        until("the burst is fresh", lambda: is_fresh(docs, 4000, "text 4000 burst"))


def test_a_change_committed_late_with_a_lower_number_is_found(url: str, docs: Connection) -> None:
    fill(docs, 10)
    with serving(settings_for(url, sync_of("docs")), NullEncoder()) as service, psycopg.connect(url) as slow:
        wait_fresh(service)
        slow.execute("UPDATE docs SET body = 'late' WHERE id = 1")
        for number in range(50):
            docs.execute("UPDATE docs SET body = %s WHERE id = 2", (f"early {number}",))
        until("the early one is fresh", lambda: is_fresh(docs, 2, "early 49"))
        slow.commit()
        until("the late one is fresh", lambda: is_fresh(docs, 1, "late"))
        until(
            "the queue is empty",
            lambda: docs.execute("SELECT count(*) FROM freshvec.queue_docs").fetchone() == (0,),
        )


def test_equal_texts_are_encoded_once(url: str, docs: Connection) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'the same ' || g %% 3 FROM generate_series(1, 300) g", ())
    encoder = NullEncoder()
    with serving(settings_for(url, sync_of("docs")), encoder) as service:
        wait_fresh(service)
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
    with serving(settings, encoder) as service:
        wait_fresh(service)
    before = docs.execute("SELECT fence FROM docs_embedding WHERE id = 1").fetchone()
    docs.execute("UPDATE docs SET body = 'detour' WHERE id = 1")
    docs.execute("UPDATE docs SET body = 'text 1' WHERE id = 1")
    with serving(settings, encoder) as service:
        wait_fresh(service)
    assert encoder.encoded == 3
    after = docs.execute("SELECT fence FROM docs_embedding WHERE id = 1").fetchone()
    assert before is not None
    assert after is not None
    assert after[0] > before[0]


def test_a_backfill_goes_on_where_it_stopped(url: str, docs: Connection) -> None:
    fill(docs, 2000)
    settings = settings_for(url, sync_of("docs"), batch_tokens=400, page_rows=100, commit_every_seconds=0.05)
    slow = NullEncoder(0.02)
    with serving(settings, slow):
        checkpoint = "SELECT backfill_after[1]::int FROM freshvec.sync"
        until(
            "some pages are written",
            lambda: slow.encoded > 500 and docs.execute(checkpoint).fetchone() != (None,),
        )
    reached = docs.execute("SELECT backfill_after[1]::int, backfill_done FROM freshvec.sync").fetchone()
    assert reached is not None
    assert 0 < reached[0] < 2000
    assert not reached[1]
    done = embedded(docs)
    quick = NullEncoder()
    with serving(settings, quick) as service:
        wait_fresh(service)
    assert embedded(docs) == 2000
    assert quick.encoded == 2000 - done, "rows that were written are not encoded again"


def test_status_says_what_is(url: str, docs: Connection) -> None:
    fill(docs, 100)
    settings = settings_for(url, sync_of("docs"))
    with serving(settings, NullEncoder()) as service:
        wait_fresh(service)
        docs.execute("UPDATE docs SET body = 'new' WHERE id = 1")
        until("the edit is fresh", lambda: is_fresh(docs, 1, "new"))
        service.housekeep()
        row = read_status(settings)
        assert row["owner_pid"] is not None
    assert (row["coverage"], row["backlog"], row["rows_total"], row["rows_fresh"], row["rows_failed"]) == (
        1,
        0,
        100,
        100,
        0,
    )
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
    with serving(settings, encoder) as service, connect(settings.database.url, "test") as connection:
        wait_fresh(service)
        bound = schema.plan(connection, settings.sync[0], Model("null", 8, 256, encoder.fingerprint)).bound
        assert verify.verify(connection, bound).is_fresh
        docs.execute("ALTER TABLE docs DISABLE TRIGGER ALL")
        docs.execute("UPDATE docs SET body = 'behind our back' WHERE id = 1")
        docs.execute("INSERT INTO docs VALUES (1000, 'unseen')")
        docs.execute("DELETE FROM docs WHERE id IN (2, 3)")
        docs.execute("UPDATE docs_embedding SET embedding = NULL WHERE id = 5")
        docs.execute("ALTER TABLE docs ENABLE TRIGGER ALL")
        report = verify.verify(connection, bound)
        assert report.problems == {"different": 1, "missing": 2, "orphaned": 2}
        assert report.examples["orphaned"] == [("2",), ("3",)]
        verify.verify(connection, bound, repair=True)
        until("it is healed", lambda: verify.verify(connection, bound).is_fresh)


def test_one_broken_sync_does_not_keep_another_from_being_fresh(url: str, docs: Connection) -> None:
    fill(docs, 5)
    docs.execute("CREATE TABLE other (id int PRIMARY KEY, body text)")
    settings = settings_for(url, sync_of("docs"), sync_of("other", name="other"))
    with serving(settings, NullEncoder()) as service:
        wait_fresh(service)
        docs.execute("ALTER TABLE other DROP COLUMN body")
        docs.execute("INSERT INTO other VALUES (1)")
        until("the broken one is in trouble", lambda: service.keepers[1].last_error)
        docs.execute("UPDATE docs SET body = 'still kept' WHERE id = 1")
        until("the other is fresh", lambda: is_fresh(docs, 1, "still kept"))
        assert "other" in str(service.keepers[1].last_error)


def test_two_workers_share_nothing_and_the_second_takes_over(url: str, docs: Connection) -> None:
    fill(docs, 5)
    settings = settings_for(url, sync_of("docs"))
    with serving(settings, NullEncoder()) as first:
        wait_fresh(first)
        with serving(settings, NullEncoder()) as second:
            until("the second stands by", lambda: second.keepers[0].seconds_until_due() > 0)
            assert second.keepers[0].pipeline is None
            threading.Thread(target=first.stop).start()
            wait_fresh(second)
            docs.execute("UPDATE docs SET body = 'second hand' WHERE id = 1")
            until("the second keeps it fresh", lambda: is_fresh(docs, 1, "second hand"))
