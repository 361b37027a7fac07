"""What members of those who share a sync write of their readings."""

import numpy as np

from freshvec.pipeline.amid_walk import as_member, is_outdated
from freshvec.pipeline.epoch import Walk
from freshvec.pipeline.ledger import Portion, Ready
from freshvec.records import Fate, Outcome, Urgency

KEY, HASH = ("1",), b"0123456789abcdef"
WALKED, AT_REST = Walk(5, True), Walk(5, False)
EMPTY = {
    "tombstone": Outcome(KEY, 7, Fate.STORE),
    "cleared": Outcome(KEY, 7, Fate.CLEAR),
    "kept": Outcome(KEY, 7, Fate.KEEP),
}
STORED = Outcome(KEY, 7, Fate.STORE, np.ones(8, np.float32), HASH)
FAILED = Outcome(KEY, 7, Fate.STORE, None, None, "refused")
TOUCHED = Outcome(KEY, 7, Fate.TOUCH, content_hash=HASH)
FOUND_SAME = Outcome(KEY, 7, Fate.KEEP, content_hash=HASH)
GONE = Outcome(KEY, 7, Fate.REMOVE)


def ready(urgency: Urgency, *outcomes: Outcome, fence: int = 7) -> Ready:
    return Ready(Portion(urgency, fence, len(outcomes)), list(outcomes))


def written(urgency: Urgency, outcome: Outcome, walk: Walk) -> tuple[Fate, bool, bool]:
    """Its fate, whether it is a tombstone, and whether its key is queued."""
    (one,), queued = as_member([ready(urgency, outcome)], walk)
    (found,) = one.outcomes
    return found.fate, found.is_tombstone, queued == [KEY]


def test_an_emptied_row_leaves_a_tombstone_while_the_table_is_walked() -> None:
    for urgency in (Urgency.LIVE, Urgency.BULK):
        assert {written(urgency, outcome, WALKED) for outcome in EMPTY.values()} == {
            (Fate.STORE, True, False)
        }


def test_otherwise_nothing_is_left_whatever_the_reading_has_found() -> None:
    assert written(Urgency.LIVE, EMPTY["cleared"], AT_REST) == (Fate.CLEAR, False, False)
    assert written(Urgency.LIVE, EMPTY["kept"], AT_REST) == (Fate.CLEAR, False, False)
    assert written(Urgency.LIVE, EMPTY["tombstone"], AT_REST) == (Fate.STORE, True, False)


def test_a_page_takes_nothing_away() -> None:
    for outcome in (EMPTY["tombstone"], EMPTY["cleared"], GONE):
        assert written(Urgency.BACKFILL, outcome, WALKED) == (Fate.KEEP, False, True)
    assert written(Urgency.BACKFILL, EMPTY["kept"], WALKED) == (Fate.KEEP, False, False)


def test_all_else_is_written_as_it_is() -> None:
    for urgency in Urgency:
        for outcome in (STORED, FAILED, TOUCHED, FOUND_SAME):
            (one,), queued = as_member([ready(urgency, outcome)], WALKED)
            assert one.outcomes == [outcome]
            assert queued == []
    assert written(Urgency.LIVE, GONE, WALKED) == (Fate.REMOVE, False, False)


def test_what_was_read_before_a_walk_began_is_outdated_also_once_that_is_over() -> None:
    for walk in (WALKED, AT_REST):
        assert is_outdated(ready(Urgency.LIVE, STORED, fence=5), walk)
        assert not is_outdated(ready(Urgency.LIVE, STORED, fence=6), walk)
        assert not is_outdated(ready(Urgency.BACKFILL, STORED, fence=5), walk)
