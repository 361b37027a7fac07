"""What one transaction of the writer holds: as much as fits a moment, live rows first, the others in turn."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from freshvec.db import connect
from freshvec.pipeline.epoch import take
from freshvec.pipeline.ledger import Ledger, Portion
from freshvec.pipeline.pace import Pace
from freshvec.pipeline.progress import Progress
from freshvec.pipeline.writer import Writer
from freshvec.records import Fate, Outcome, Urgency
from tests.support import Connection, NullEncoder, backfill, bound_sync, count, settings_for, sync_of

BULK, LIVE = 10_000, 20_000  # fences


@dataclass
class Bench:
    """A writer of `docs`, rows 1 to 500, without the threads that would call it."""

    docs: Connection
    writer: Writer
    ledger: Ledger

    def ready(self, urgency: Urgency, fence: int, rows: range) -> None:
        """These rows have been read and encoded."""
        portion = Portion(urgency, fence, len(rows))
        vector = np.ones(8, dtype=np.float32)
        self.ledger.open(portion)
        self.ledger.put(portion, [Outcome((str(row),), fence, Fate.STORE, vector, b"h" * 16) for row in rows])

    def written(self, fence: int) -> int:
        return count(self.docs, f"docs_embedding WHERE fence >= {fence} AND fence < {fence + 10_000}")


@pytest.fixture
def bench(docs: Connection) -> Iterator[Bench]:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 500) g")
    settings = settings_for(docs.info.dsn, sync_of("docs"))
    backfill(settings, NullEncoder())
    with connect(settings.database.url, "test") as connection:
        bound = bound_sync(connection, settings, NullEncoder())
        epoch, ledger = take(connection, "docs", bound.generation), Ledger()
        writer = Writer(connection, bound, settings.daemon, Progress(), ledger, epoch)
        yield Bench(docs, writer, ledger)


def test_a_transaction_holds_what_fits_and_live_rows_go_first(bench: Bench) -> None:
    bench.ready(Urgency.BACKFILL, BULK, range(1, 301))
    bench.ready(Urgency.LIVE, LIVE, range(400, 402))
    assert bench.writer.step() == 0
    assert (bench.written(LIVE), bench.written(BULK)) == (2, 0)
    assert bench.writer.step() == 0
    assert bench.written(BULK) == Pace().rows
    while bench.ledger.in_flight():
        assert bench.writer.step() == 0
    assert bench.written(BULK) == 300


def test_live_rows_do_not_hold_up_the_others_for_ever(bench: Bench) -> None:
    bench.ready(Urgency.BULK, BULK, range(1, 11))
    for turn in range(20):
        bench.ready(Urgency.LIVE, LIVE + turn, range(400, 401))
        bench.writer.step()
    assert bench.written(BULK) == 10
    assert bench.written(LIVE + 10) == 1
