"""What other threads ask a keeper while the main loop ends its pipeline."""

import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from freshvec.worker.keeper import Keeper

QUESTIONS: dict[str, Callable[[Keeper], object]] = {
    "is_fresh": lambda keeper: keeper.is_fresh,
    "phase": lambda keeper: keeper.phase,
}


@pytest.mark.parametrize("asked", QUESTIONS.values(), ids=QUESTIONS.keys())
def test_a_pipeline_may_be_gone_once_it_was_looked_at(
    asked: Callable[[Keeper], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = SimpleNamespace(fresh=threading.Event(), phase="watching")
    looks = iter([pipeline])
    monkeypatch.setattr(Keeper, "pipeline", property(lambda _: next(looks, None)), raising=False)
    assert asked(object.__new__(Keeper)) in (False, "watching")
