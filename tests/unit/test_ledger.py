"""What has been read and is not yet written, and how far a walk has come."""

from collections.abc import Iterator

from freshvec.pipeline.ledger import Checkpoint, Ledger, Portion, Ready
from freshvec.records import Fate, Key, Outcome, Urgency


def page(ledger: Ledger, *keys: str) -> Portion:
    """Rows of a walk, read as one page."""
    opened = Portion(Urgency.BACKFILL, 1, len(keys), last_key=(keys[-1],))
    ledger.open(opened)
    return opened


def ready(portion: Portion, *keys: str) -> list[Ready]:
    return [Ready(portion, [Outcome((key,), portion.fence, Fate.KEEP) for key in keys])]


def written(ledger: Ledger, batches: list[Ready]) -> list[Checkpoint]:
    """The checkpoint of a transaction that writes these."""
    reached = ledger.reached(batches)
    ledger.settle(batches)
    return reached


def test_a_page_that_is_written_before_the_one_ahead_of_it_is_passed_with_that_one() -> None:
    ledger = Ledger()
    first, second = page(ledger, "1", "2"), page(ledger, "3")
    assert written(ledger, ready(second, "3")) == []
    assert written(ledger, ready(first, "1")) == []
    key: Key = ("3",)
    assert written(ledger, ready(first, "2")) == [Checkpoint(key, rows=3, not_fresh=0)]
    assert ledger.in_flight() == 0
    assert written(ledger, ready(page(ledger, "4"), "4")) == [Checkpoint(("4",), rows=1, not_fresh=0)]


def test_the_first_failure_stays() -> None:
    """By it a pipeline that ends knows that the encoder has failed, and not its own writing: what was encoded
    is written then. Batches that were under way fail one after the other."""
    ledger, first = Ledger(), RuntimeError("the first batch")
    ledger.fail(first)
    ledger.fail(RuntimeError("the next"))
    assert ledger.failure is first


def test_what_was_missed_is_known_before_nothing_is_in_flight() -> None:
    """Else all would be called fresh for a moment, in which a backfill ends."""
    ledger = Ledger()
    batches = ready(page(ledger, "1"), "1")

    class Watched(list[Ready]):
        """Sees the ledger at the moment in which its rows are taken from it."""

        def __iter__(self) -> Iterator[Ready]:
            assert ledger.has_missed
            return super().__iter__()

    ledger.settle(Watched(batches), missed=True)
    assert ledger.in_flight() == 0
    ledger.has_missed = False
    ledger.settle([])
    assert not ledger.has_missed
