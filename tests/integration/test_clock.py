"""The wall clock is put right while a worker runs."""

from datetime import timedelta
from functools import partial

import pytest

from tests.support import (
    Connection,
    NullEncoder,
    content_hash,
    count,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
)
from tests.wall_clock import WallClock

HASH = "SELECT content_hash FROM docs_embedding WHERE id = %s"


def is_fresh(docs: Connection, row: int, text: str) -> bool:
    return docs.execute(HASH, (row,)).fetchone() == (content_hash(text),)


def test_sweeps_and_notes_go_on_where_the_clock_was_set_back(
    url: str, docs: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = WallClock.of_scheduler(monkeypatch)
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 10) g")
    with running(settings_for(url, sync_of("docs"), sweep_seconds=0.3), NullEncoder()) as worker:
        wait_fresh(worker)
        clock.by = -timedelta(hours=2)
        for number in range(3):
            docs.execute("DROP TRIGGER freshvec_docs_update ON docs")
            docs.execute("UPDATE docs SET body = %s WHERE id = 1", (f"unseen {number}",))
            until("a sweep finds it", partial(is_fresh, docs, 1, f"unseen {number}"), 20)
        until("it is noted", lambda: count(docs, "freshvec.activity WHERE rows_written >= 13"), 20)
