"""Take out one safeguard at a time: the test that is named for it must fail, or it proves nothing."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import pytest

from freshvec.capture import queue
from freshvec.pipeline import epoch
from freshvec.pipeline.epoch import Epoch
from freshvec.pipeline.ledger import Ledger
from freshvec.target.upsert import TargetWriter
from tests.integration.stepwise import Bench
from tests.integration.test_interleavings import (
    a_change_that_commits_late_is_read,
    a_removal_sees_what_is_being_written,
    a_row_without_text_keeps_older_readings_out,
    a_touch_does_not_hide_what_an_older_reading_wrote,
    an_older_reading_stays_out,
    an_owner_of_another_time_writes_nothing,
)
from tests.support import Connection


def without(statements: Mapping[str, str], name: str, part: str, instead: str) -> dict[str, str]:
    """The statements, one of them changed."""
    assert part in statements[name], f"{name} has no {part!r} to take out"
    return {**statements, name: statements[name].replace(part, instead)}


def no_fence(patch: pytest.MonkeyPatch) -> None:
    changed = without(TargetWriter.statements, "upsert", "WHERE t.fence < excluded.fence", "WHERE true")
    patch.setattr(TargetWriter, "statements", changed)


def no_epoch(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Epoch, "check", lambda self, connection: None)


def no_late_transactions(patch: pytest.MonkeyPatch) -> None:
    """What ran at a snapshot is taken to be over."""
    unseen_by = queue.unseen_by
    patch.setattr(queue, "unseen_by", lambda snapshot: replace(unseen_by(snapshot), running=()))


def no_lock_of_a_removal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(epoch, "_SQL", without(epoch._SQL, "lock_alone", "_xact_lock(", "_xact_lock_shared("))


def no_condition_of_a_touch(patch: pytest.MonkeyPatch) -> None:
    changed = without(TargetWriter.statements, "touch", "AND t.content_hash = ", "AND ''::bytea <> ")
    patch.setattr(TargetWriter, "statements", changed)


def no_tombstone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "has_older", lambda self, portion: False)


MUTATIONS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[Bench], None]]] = {
    "the fence": (no_fence, an_older_reading_stays_out),
    "the epoch": (no_epoch, an_owner_of_another_time_writes_nothing),
    "what ran at a snapshot": (
        no_late_transactions,
        partial(a_change_that_commits_late_is_read, has_later_id=False),
    ),
    "the removal's lock": (no_lock_of_a_removal, a_removal_sees_what_is_being_written),
    "the touch's condition": (no_condition_of_a_touch, a_touch_does_not_hide_what_an_older_reading_wrote),
    "the tombstone": (no_tombstone, a_row_without_text_keeps_older_readings_out),
}


@pytest.mark.parametrize(("mutate", "scenario"), MUTATIONS.values(), ids=MUTATIONS.keys())
def test_what_is_taken_out_is_missed(
    docs: Connection,
    monkeypatch: pytest.MonkeyPatch,
    mutate: Callable[[pytest.MonkeyPatch], None],
    scenario: Callable[[Bench], None],
) -> None:
    bench = Bench(docs)
    mutate(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        scenario(bench)
