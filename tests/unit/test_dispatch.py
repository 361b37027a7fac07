"""The dispatcher: the most urgent first, none waits for ever, and a bad text costs no other its vector."""

import threading
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freshvec.encoding.budget import BatchBudget
from freshvec.encoding.dispatch import Dispatcher
from freshvec.errors import EncodingError
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


@pytest.fixture
def encoder() -> Recorder:
    return Recorder()


@pytest.fixture
def dispatcher(encoder: Recorder) -> Iterator[Dispatcher]:
    made = Dispatcher(encoder, BatchBudget(64, fixed=True))
    yield made
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


def test_a_broken_runtime_is_not_blamed_on_the_texts(encoder: Recorder, dispatcher: Dispatcher) -> None:
    encoder.gate.set()
    encoder.broken = "the device has fallen off the bus"
    for result in encoded(dispatcher, [1, 2, 3]):
        assert isinstance(result, EncodingError)
        assert result.retryable
        assert "the device has fallen off the bus" in str(result)
    encoder.broken = None
    assert [float(result[0]) for result in encoded(dispatcher, [1]) if isinstance(result, np.ndarray)] == [
        1.0
    ]


def test_out_of_memory_halves_the_batch_and_remembers_the_ceiling(encoder: Recorder) -> None:
    encoder.gate.set()
    encoder.room = 128
    budget = BatchBudget(512)
    dispatcher = Dispatcher(encoder, budget)
    results = encoded(dispatcher, list(range(64)))  # 256 padded tokens
    dispatcher.stop(10)
    assert [float(result[0]) for result in results if isinstance(result, np.ndarray)] == list(range(64))
    assert [len(batch) for batch in encoder.batches] == [32, 32]
    assert budget.ceiling == 128
    assert budget.next_size() <= 128
    assert (dispatcher.out_of_memory, dispatcher.failed) == (1, 0)
    assert (dispatcher.batches, dispatcher.padded) == (1, 256)


def test_a_single_text_without_room_begins_the_runtime_anew_once(
    encoder: Recorder, dispatcher: Dispatcher
) -> None:
    encoder.gate.set()
    encoder.room = 3
    (vector,) = encoded(dispatcher, [5])
    assert isinstance(vector, np.ndarray)
    assert encoder.rebuilt == 1
    encoder.room = encoder.after_rebuild = 3
    (error,) = encoded(dispatcher, [5])
    assert isinstance(error, EncodingError)
    assert error.retryable
    assert encoder.rebuilt == 2


def test_a_batch_of_which_no_text_has_room_loads_the_model_once(
    encoder: Recorder, dispatcher: Dispatcher
) -> None:
    encoder.gate.set()
    encoder.room = encoder.after_rebuild = 3
    errors = encoded(dispatcher, list(range(16)))
    assert all(isinstance(error, EncodingError) and error.retryable for error in errors)
    assert len(errors) == 16
    assert encoder.rebuilt == 1


def test_when_new_sessions_do_not_help_the_process_gives_up(
    encoder: Recorder, dispatcher: Dispatcher
) -> None:
    encoder.gate.set()
    encoder.room = encoder.after_rebuild = 3
    for attempt in range(1, 4):
        assert dispatcher.lost is None
        encoded(dispatcher, [5])
        assert encoder.rebuilt == attempt
    assert dispatcher.lost is not None
    assert dispatcher.lost.exit_code == 1
    assert "3 batches in a row failed" in str(dispatcher.lost)
    assert "no room" in str(dispatcher.lost)


@pytest.mark.parametrize(("device", "gives_up"), [("cuda", True), ("cpu", False)])
def test_only_a_gpu_is_given_up_for_an_error_that_stays(
    encoder: Recorder, dispatcher: Dispatcher, device: str, gives_up: bool
) -> None:
    encoder.gate.set()
    encoder.device = device
    encoder.broken = "CUDA failure 700: an illegal memory access was encountered"
    for _ in range(4):
        encoded(dispatcher, [1])
    assert (dispatcher.lost is not None) == gives_up


def test_failures_with_a_success_between_them_are_no_reason_to_give_up(
    encoder: Recorder, dispatcher: Dispatcher
) -> None:
    encoder.gate.set()
    for broken in ("once", "twice", None, "again", "and again", None):
        encoder.broken = broken
        encoded(dispatcher, [1])
    encoder.broken = None
    for _ in range(4):
        encoded(dispatcher, [REFUSED, 1])  # the text's own fault
    assert dispatcher.lost is None


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


def test_what_nobody_wants_any_more_is_not_encoded(encoder: Recorder, dispatcher: Dispatcher) -> None:
    done: list[Results] = []
    for number, owner in enumerate(["first", "gone", "gone", "stays"]):
        dispatcher.submit(Urgency.BULK, [text(number)], 64, done.append, owner=owner)
    until("the first batch is in hand", lambda: dispatcher.waiting == 3)
    dispatcher.forget("gone")
    encoder.gate.set()
    until("the rest is encoded", lambda: len(done) == 2)
    assert encoder.batches == [[0], [3]]


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


def test_whatever_ends_its_thread_ends_the_process(dispatcher: Dispatcher, encoder: Recorder) -> None:
    """A fault of ours in what is done with the vectors: nobody would encode any more, and nobody say so."""
    encoder.gate.set()

    def fails(results: Results) -> None:
        raise ZeroDivisionError("of ours")

    dispatcher.submit(Urgency.LIVE, encoder.tokenize(["text"]), 64, fails)
    until("it gives up", lambda: dispatcher.lost is not None)
    assert "of ours" in str(dispatcher.lost)
