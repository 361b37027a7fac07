"""How often a reader looks, and what it remembers for that."""

import itertools
import tracemalloc

import pytest

from freshvec.pipeline.polling import Polling


def test_what_is_remembered_does_not_grow_while_it_is_rung(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(1000.0, 0.02)
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    polling = Polling(lambda: None)
    polling.is_rung = True
    tracemalloc.start()
    try:
        for _ in range(20_000):  # that many edits
            polling.found(1)
            polling.pause()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 20_000
