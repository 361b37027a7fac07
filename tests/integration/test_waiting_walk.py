"""A walk that has read enough ahead leaves the processor to the encoder."""

import math
import threading

from freshvec.records import Tokens, Vector
from tests.support import Connection, NullEncoder, count, running, settings_for, sync_of, until, wait_fresh

PAGE_ROWS = 100


class Held(NullEncoder):
    """Encodes nothing until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def encode(self, batch: list[Tokens]) -> Vector:
        self.go_on.wait(60)
        return super().encode(batch)


def test_a_walk_without_room_waits_for_what_is_written(url: str, docs: Connection) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 1000) g")
    encoder = Held()
    with running(settings_for(url, sync_of("docs"), page_rows=PAGE_ROWS), encoder) as worker:

        def is_full() -> bool:
            pipeline = worker.keepers[0].pipeline
            return pipeline is not None and pipeline.ledger.in_flight() == 2 * PAGE_ROWS

        until("two pages wait for the encoder", is_full)
        pipeline = worker.keepers[0].pipeline
        assert pipeline is not None
        assert pipeline.reader.patience() == math.inf, "it need not look before something was written"
        encoder.go_on.set()
        wait_fresh(worker)
    assert count(docs, "docs_embedding WHERE embedding IS NOT NULL") == 1000
