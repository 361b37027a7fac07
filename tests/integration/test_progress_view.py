"""What the database shows of the work under way: `freshvec.progress`, and lags that outlive the worker."""

import threading

import psycopg
import pytest
from pydantic import SecretStr

from freshvec.db import connect
from freshvec.health.status import read
from freshvec.pipeline.lags import BOUNDS
from freshvec.records import Tokens, Vector
from tests.integration.at_rest import Kept
from tests.support import Connection, NullEncoder, count, running, settings_for, sync_of, until, wait_fresh

PROGRESS = "SELECT phase, rows_done, rows_total, rows_per_second, eta_seconds, queued FROM freshvec.progress"


class Held(NullEncoder):
    """Encodes only while it may."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def encode(self, batch: list[Tokens]) -> Vector:
        self.go_on.wait(60)
        return super().encode(batch)


def test_a_walk_shows_how_far_it_is(url: str, docs: Connection) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 3000) g")
    docs.execute("ANALYZE docs")
    encoder = Held()
    often = {"batch_tokens": 400, "page_rows": 100, "commit_every_seconds": 0.05}
    with running(settings_for(url, sync_of("docs"), **often), encoder) as worker:
        until("it is walked", lambda: worker.keepers[0].phase == "walking")
        worker.housekeep()
        assert docs.execute(PROGRESS).fetchone() == ("walking", 0, 3000, 0, None, 0)
        encoder.go_on.set()
        until("it is fresh", lambda: worker.keepers[0].is_fresh)
        docs.execute("UPDATE docs SET body = 'edited' WHERE id = 1")
        wait_fresh(worker)
        worker.housekeep()
        phase, done, total, rate, eta, queued = docs.execute(PROGRESS).fetchone() or ()
        assert (phase, done, total, eta, queued) == ("live", None, None, 0, 0)
        assert rate > 0
    until("nothing is under way without a worker", lambda: docs.execute(PROGRESS).fetchall() == [])


def test_how_far_and_how_long_while_it_goes_on(url: str, docs: Connection) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 3000) g; ANALYZE docs")
    often = {"batch_tokens": 400, "page_rows": 100, "commit_every_seconds": 0.05}
    with running(settings_for(url, sync_of("docs"), **often), NullEncoder(0.02)) as worker:
        until("it is walked", lambda: worker.keepers[0].phase == "walking")
        until("rows are written", lambda: count(docs, "freshvec.sync WHERE walk_rows > 0"))
        worker.housekeep()
        phase, done, total, rate, eta, _ = docs.execute(PROGRESS).fetchone() or ()
        assert phase == "walking"
        assert 0 < done < total == 3000
        assert eta == pytest.approx((total - done) / rate, rel=0.01)


def test_other_phases_have_their_names(kept: Kept) -> None:
    seen = []
    with kept.running() as worker:
        keeper = worker.keepers[0]
        kept.app.execute("SELECT freshvec.ask_for_walk('docs', 'test')")

        def watch() -> bool:
            seen.append(keeper.phase)
            return count(kept.app, "freshvec.rescan") == 0 and keeper.is_fresh

        until("it is walked again", watch)
    assert {"live", "walking"} >= set(seen) - {"finding orphans", "comparing vectors"}
    assert keeper.phase == "applying", "it has no pipeline any more"


def test_lags_add_up_over_restarts(kept: Kept) -> None:
    periods = "SELECT period, changes, p50_ms, p90_ms, p99_ms, longest_ms FROM freshvec.lag"
    with kept.running():
        pass
    assert kept.app.execute(periods).fetchall() == [
        (period, 0, None, None, None, None) for period in ("hour", "day", "week")
    ]
    for restart in (1, 2):
        with kept.running():
            for row in range(1, 11):
                kept.app.execute("UPDATE docs SET body = %s WHERE id = %s", (f"edit {restart}", row))
            until("all are fresh", lambda: count(kept.app, "freshvec.queue_docs") == 0)
        for _, changes, p50, p90, p99, longest in kept.app.execute(periods):
            assert changes == 10 * restart
            assert 0 < p50 <= p90 <= p99 < 2 * longest
    with connect(kept.settings.database.url, "test") as connection:
        (shown,) = read(connection)
        assert 0 < shown["lag_p50_ms"] <= shown["lag_p99_ms"]


def test_lags_that_cannot_be_written_are_written_the_next_time(kept: Kept) -> None:
    with kept.running() as worker:
        kept.app.execute("ALTER TABLE freshvec.lag_hour RENAME TO elsewhere")
        kept.app.execute("UPDATE docs SET body = 'edited' WHERE id = 1")
        wait_fresh(worker)
        worker.housekeep()
        kept.app.execute("ALTER TABLE freshvec.elsewhere RENAME TO lag_hour")
        worker.housekeep()
        worker.housekeep()
        assert kept.app.execute("SELECT sum(c) FROM freshvec.lag_hour, unnest(counts) c").fetchone() == (1,)


def test_what_is_older_than_a_week_stays_in_the_sum(kept: Kept) -> None:
    counts = [0] * (len(BOUNDS) + 1)
    old = "INSERT INTO freshvec.lag_hour VALUES ('docs', now() - %s::interval, %s, %s, %s)"
    with kept.running() as worker:
        for age, number in (("8 days", 5), ("20 days", 7), ("2 days", 11)):
            kept.app.execute(old, (age, [*counts[:-1], number], number, number))
        kept.app.execute("UPDATE docs SET body = 'edited' WHERE id = 1")
        wait_fresh(worker)
        worker.housekeep()
    oldest, rows, most = kept.app.execute(
        "SELECT counts[22], (SELECT count(*) FROM freshvec.lag_hour), longest_ms"
        " FROM freshvec.lag_hour WHERE hour = '-infinity'"
    ).fetchone() or (0, 0, 0)
    assert (oldest, rows, most) == (12, 3, 7)
    week = "SELECT changes FROM freshvec.lag WHERE period = 'week'"
    assert kept.app.execute(week).fetchone() == (12,)


@pytest.mark.parametrize(
    ("filled", "share", "wanted"),
    [
        ({1: 4}, 0.5, 0.5),
        ({4: 10}, 0.5, 6),
        ({4: 10}, 1, 8),
        ({4: 90, 8: 10}, 0.9, 8),
        ({4: 90, 8: 10}, 0.95, 96),
        ({22: 1}, 0.5, 2**20),
        ({}, 0.5, None),
    ],
)
def test_a_quantile_lies_in_its_bucket(
    kept: Kept, filled: dict[int, int], share: float, wanted: float | None
) -> None:
    with kept.running():
        pass
    counts = [filled.get(place, 0) for place in range(1, len(BOUNDS) + 2)]
    asked = "SELECT freshvec.lag_quantile(%s::bigint[], %s)"
    (found,) = kept.app.execute(asked, (counts, share)).fetchone() or (None,)
    assert found == (None if wanted is None else pytest.approx(wanted))


def test_every_session_says_what_it_is_for(kept: Kept) -> None:
    with kept.running(), psycopg.connect(kept.url) as watching:
        names = watching.execute(
            "SELECT application_name FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> ALL (%s)",
            ([watching.info.backend_pid, kept.app.info.backend_pid],),
        ).fetchall()
    assert names
    assert all(name.startswith("freshvec ") for (name,) in names)


def test_a_name_in_the_url_does_not_hide_what_a_session_is_for(kept: Kept) -> None:
    with connect(SecretStr(f"{kept.url}&application_name=shop"), "test") as connection:
        assert connection.execute("SHOW application_name").fetchone() == ("freshvec test",)
