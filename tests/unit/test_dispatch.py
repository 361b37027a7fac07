"""The dispatcher: the most urgent first, none waits for ever, and a bad text costs no other its vector."""

import threading
import weakref
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freshvec.encoding.budget import BatchBudget
from freshvec.encoding.dispatch import Dispatcher
from freshvec.errors import EncodingError
from freshvec.records import Tokens, Urgency, Vector
from tests.support import until
from tests.unit.recorder import REFUSED, Recorder, Results, dispatching, encoded, text


@pytest.fixture
def encoder() -> Recorder:
    return Recorder()


@pytest.fixture
def dispatcher(encoder: Recorder) -> Iterator[Dispatcher]:
    with dispatching(encoder) as made:
        yield made


def order_of(encoder: Recorder, dispatcher: Dispatcher, urgencies: list[Urgency]) -> list[int]:
    """The places in `urgencies` in the order in which their batches are encoded.

    They wait together: another batch takes the first turn.
    """
    done: list[Results] = []
    dispatcher.submit(Urgency.LIVE, [text(1000)], 64, done.append)
    assert encoder.entered.wait(30)
    for number, urgency in enumerate(urgencies):
        dispatcher.submit(urgency, [text(number)], 64, done.append)
    encoder.gate.set()
    until("all are encoded", lambda: len(done) == len(urgencies) + 1)
    return [batch[0] for batch in encoder.batches[1:]]


def test_the_most_urgent_goes_first_and_equals_in_their_order(
    encoder: Recorder, dispatcher: Dispatcher
) -> None:
    backfill, bulk, live = Urgency.BACKFILL, Urgency.BULK, Urgency.LIVE
    assert order_of(encoder, dispatcher, [backfill, bulk, live, live, bulk, backfill]) == [2, 3, 1, 4, 0, 5]


def test_every_eighth_turn_is_the_oldests(encoder: Recorder, dispatcher: Dispatcher) -> None:
    order = order_of(encoder, dispatcher, [Urgency.BACKFILL] * 3 + [Urgency.LIVE] * 20)
    live = list(range(3, 23))
    assert order == [*live[:6], 0, *live[6:13], 1, *live[13:20], 2]


def test_what_is_urgent_goes_between_the_pieces_of_a_batch(encoder: Recorder, dispatcher: Dispatcher) -> None:
    done: list[Results] = []
    dispatcher.submit(Urgency.LIVE, [text(1000)], 64, done.append)  # somebody edits: others may come
    assert encoder.entered.wait(30)
    dispatcher.submit(Urgency.BACKFILL, [text(number) for number in range(100)], 400, done.append)
    encoder.begin_again()
    until("the first piece is under way", encoder.entered.is_set)
    dispatcher.submit(Urgency.LIVE, [text(2000)], 64, done.append)
    encoder.gate.set()
    until("all are encoded", lambda: len(done) == 3)
    place = encoder.batches.index([2000])
    assert place == 2, "it came after the first and the first piece of the batch"
    pieces = [*encoder.batches[1:2], *encoder.batches[3:]]
    assert [number for piece in pieces for number in piece] == list(range(100))
    assert [len(results) for results in done] == [1, 1, 100]


def test_a_refused_text_costs_no_other_its_vector(encoder: Recorder, dispatcher: Dispatcher) -> None:
    encoder.gate.set()
    numbers = [*range(57), REFUSED, *range(57, 99)]
    results = encoded(dispatcher, numbers)
    errors = [place for place, result in enumerate(results) if isinstance(result, Exception)]
    assert errors == [57]
    assert str(results[57]) == "refused among 1"
    assert not isinstance(results[57], EncodingError)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.sampled_from([1, 2, 3, REFUSED]), min_size=1, max_size=40), st.sampled_from([4, 12, 10**9])
)
def test_as_many_results_as_texts_in_their_order(numbers: list[int], room: int) -> None:
    encoder = Recorder()
    encoder.gate.set()
    encoder.room = room
    dispatcher = Dispatcher(encoder, BatchBudget(64, fixed=True))
    results = encoded(dispatcher, numbers)
    dispatcher.stop(10)
    assert len(results) == len(numbers)
    for number, result in zip(numbers, results, strict=True):
        if number == REFUSED:
            assert isinstance(result, RuntimeError)
        else:
            assert isinstance(result, np.ndarray)
            assert result.tolist() == [number] * encoder.dimension


def test_stop_finishes_the_batch_in_hand_and_forgets_the_rest(
    encoder: Recorder, dispatcher: Dispatcher
) -> None:
    done: list[Results] = []
    dispatcher.submit(Urgency.BACKFILL, [text(1)], 64, done.append)
    assert encoder.entered.wait(30)
    dispatcher.submit(Urgency.LIVE, [text(2)], 64, done.append)
    stopping = threading.Thread(target=dispatcher.stop, args=(30,))
    stopping.start()
    until("it is told to stop", lambda: dispatcher.is_stopping)
    encoder.gate.set()
    stopping.join(30)
    assert encoder.batches == [[1]]
    assert len(done) == 1


def test_who_searches_is_told_when_the_model_is_let_go_of(encoder: Recorder, dispatcher: Dispatcher) -> None:
    done: list[Results] = []
    dispatcher.submit(Urgency.BACKFILL, [text(1)], 64, done.append)
    assert encoder.entered.wait(30)
    searches: list[Results] = []
    dispatcher.submit(Urgency.QUERY, [text(2), text(3)], 64, searches.append)
    dispatcher.stop(0.0)
    dispatcher.submit(Urgency.QUERY, [text(4)], 64, searches.append)
    assert [len(results) for results in searches] == [2, 1]
    for result in (result for results in searches for result in results):
        assert str(result).endswith("taken out of this process. Try again, by the sync's name.")
    encoder.gate.set()


def test_a_batch_that_is_done_is_not_held(encoder: Recorder, dispatcher: Dispatcher) -> None:
    """By the thread that encoded it and waits for the next: what owns it may have ended."""

    class Owner:
        pass

    owner, done = Owner(), list[Results]()
    kept = weakref.ref(owner)
    dispatcher.submit(Urgency.BULK, [text(1)], 64, done.append, owner=owner)
    del owner
    encoder.gate.set()
    until("it is let go of", lambda: done and kept() is None)


def test_what_nobody_wants_any_more_is_not_encoded(encoder: Recorder, dispatcher: Dispatcher) -> None:
    done: list[Results] = []
    for number, owner in enumerate(["first", "gone", "gone", "stays"]):
        dispatcher.submit(Urgency.BULK, [text(number)], 64, done.append, owner=owner)
    until("the first batch is in hand", lambda: dispatcher.waiting == 3)
    dispatcher.forget("gone")
    encoder.gate.set()
    until("the rest is encoded", lambda: len(done) == 2)
    assert encoder.batches == [[0], [3]]


def test_what_an_owner_brings_that_has_ended_is_not_encoded(
    encoder: Recorder, dispatcher: Dispatcher
) -> None:
    """Its reader may be in the middle of a page, which a busy machine does not wait for."""

    class Owner:
        pass

    done: list[Results] = []
    ended, lives = Owner(), Owner()
    encoder.gate.set()
    dispatcher.forget(ended, for_good=True)
    dispatcher.forget(lives)
    for number, owner in enumerate([ended, lives]):
        dispatcher.submit(Urgency.BULK, [text(number)], 64, done.append, owner=owner)
    until("the other's is encoded", lambda: done)
    assert encoder.batches == [[1]]


class Gpu(Recorder):
    """A recorder on a GPU: it notes how many batches are under way at most."""

    device = "cuda"

    def __init__(self) -> None:
        super().__init__()
        self.under_way = self.most = 0
        self._counting = threading.Lock()

    def encode(self, batch: list[Tokens]) -> Vector:
        with self._counting:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        try:
            return super().encode(batch)
        finally:
            with self._counting:
                self.under_way -= 1


def test_on_a_gpu_two_batches_are_under_way_and_every_text_gets_its_own_vector() -> None:
    encoder = Gpu()
    made = Dispatcher(encoder, BatchBudget(64, fixed=True))
    answers: dict[int, Results] = {}
    for number in range(40):
        made.submit(Urgency.BULK, [text(number)], 64, partial(answers.__setitem__, number))
    until("two are under way", lambda: encoder.under_way == 2)
    assert made.waiting == 38
    encoder.gate.set()
    until("all are encoded", lambda: len(answers) == 40)
    made.stop(10)
    assert encoder.most == 2
    for number, found in answers.items():
        assert isinstance(found[0], np.ndarray)
        assert found[0][0] == number
    assert made.tokens == 40 * 4
