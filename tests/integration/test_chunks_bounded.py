"""How much is in hand at a time where texts are cut into passages."""

import threading

from freshvec.records import Tokens, Urgency, Vector
from tests.passages import OVERLAP, TOKENS, WordEncoder, stale_passages
from tests.support import Connection, running, settings_for, sync_of, until, wait_fresh


class HeldWords(WordEncoder):
    """Encodes nothing until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()
        self.has_seen_last = False

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        self.has_seen_last |= "the last" in texts
        return super().tokenize(texts)

    def encode(self, batch: list[Tokens]) -> Vector:
        assert self.go_on.wait(90)
        return super().encode(batch)


def test_live_changes_are_bounded_also_beside_a_page_of_long_texts(url: str, docs: Connection) -> None:
    """Between two slices of such a page some live changes are read, as many as there is room for."""
    encoder = HeldWords()
    settings = settings_for(url, sync_of("docs", chunk={"tokens": TOKENS, "overlap": OVERLAP}))
    with running(settings, encoder) as worker:
        wait_fresh(worker)
        pipeline = worker.keepers[0].pipeline
        assert pipeline is not None
        short = "INSERT INTO docs SELECT g, 'short' FROM generate_series(%s::int, %s) g"
        long = "INSERT INTO docs SELECT 10000 + g, repeat('some words ', 1000) FROM generate_series(1, 90) g"
        last = "INSERT INTO docs SELECT 20000 + g, 'the last' FROM generate_series(1, 65) g"
        with docs.transaction():
            for first in range(0, 4500, 50):
                docs.execute(short, (first, first + 49))
            docs.execute(long)
            docs.execute(last)
        until("all slices were read", lambda: pipeline.ledger.in_flight(Urgency.BULK) == 155)
        until("the page is read", lambda: encoder.has_seen_last)
        assert pipeline.ledger.in_flight(Urgency.LIVE) <= 11 * 256
        encoder.go_on.set()
        wait_fresh(worker)
        assert stale_passages(docs, encoder, TOKENS, OVERLAP) == []
