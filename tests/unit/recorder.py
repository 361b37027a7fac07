"""An encoder that notes what it is asked for, and the dispatcher that asks it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from freshvec.encoding.budget import BatchBudget
from freshvec.encoding.dispatch import Dispatcher
from freshvec.records import OutOfMemoryError, Tokens, Urgency, Vector
from tests.support import NullEncoder, until

REFUSED = 666
Results = list[Vector | Exception]


class Recorder(NullEncoder):
    """Its vectors are the first token of each text; it notes the batches and can be held up or broken."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.batches: list[list[int]] = []
        self.broken: str | None = None
        self.room = 10**9
        self.rebuilt = 0
        self.after_rebuild = 10**9

    def begin_again(self) -> None:
        """Let what is under way end, and hold up the next."""
        self.entered.clear()
        before, self.gate = self.gate, threading.Event()
        before.set()

    def rebuild(self) -> None:
        self.rebuilt += 1
        self.room = self.after_rebuild

    def encode(self, batch: list[Tokens]) -> Vector:
        self.entered.set()
        assert self.gate.wait(30)
        if self.broken:
            raise RuntimeError(self.broken)
        if max(map(len, batch)) * len(batch) > self.room:
            raise OutOfMemoryError("no room")
        first = [int(text.ids[0]) for text in batch]
        if REFUSED in first:
            raise RuntimeError(f"refused among {len(batch)}")
        self.batches.append(first)
        return np.array([[number] * self.dimension for number in first], dtype=np.float32)


@contextmanager
def dispatching(encoder: Recorder) -> Iterator[Dispatcher]:
    """Its dispatcher, with batches of a fixed size; what is held up goes on at the end."""
    made = Dispatcher(encoder, BatchBudget(64, fixed=True))
    try:
        yield made
    finally:
        encoder.gate.set()
        made.stop(10)


def text(number: int) -> Tokens:
    return Tokens(np.array([number, 0, 0, 0], dtype=np.int64))


def encoded(dispatcher: Dispatcher, numbers: list[int]) -> Results:
    """The results of one batch."""
    answers: list[Results] = []
    dispatcher.submit(Urgency.LIVE, [text(number) for number in numbers], 64, answers.append)
    until("the batch is encoded", lambda: answers)
    return answers[0]
