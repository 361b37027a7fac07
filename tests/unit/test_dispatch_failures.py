"""The dispatcher when encoding fails: a smaller batch, the runtime anew, and the end of the process."""

import queue
import time
from collections.abc import Iterator

import numpy as np
import pytest

from freshvec.encoding.budget import BatchBudget, Known
from freshvec.encoding.ceiling import Ceiling
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


def long(tokens: int) -> Tokens:
    return Tokens(np.full(tokens, 7, dtype=np.int64))


def test_a_text_that_no_memory_holds_has_the_error_and_the_others_their_vectors(
    encoder: Recorder, dispatcher: Dispatcher
) -> None:
    encoder.gate.set()
    encoder.room = encoder.after_rebuild = 50
    texts = [*(text(number) for number in range(10)), long(100), long(200), long(90)]
    for _ in range(4):
        answers: queue.SimpleQueue[Results] = queue.SimpleQueue()
        dispatcher.submit(Urgency.BACKFILL, texts, 64, answers.put)
        *vectors, error, longer, shorter = answers.get(timeout=30)
    assert all(isinstance(vector, np.ndarray) for vector in vectors)
    for each, tokens in ((error, 100), (longer, 200), (shorter, 90)):
        assert isinstance(each, EncodingError)
        assert not each.retryable
        assert f"a text of {tokens} tokens" in str(each)
    assert encoder.rebuilt == 4 * 2, "none for a text longer than one that was tried"
    assert dispatcher.lost is None


def test_a_new_session_that_helps_leaves_the_batches_as_they_were_halved_at_first(encoder: Recorder) -> None:
    encoder.gate.set()
    encoder.room = 3
    budget = BatchBudget(512)
    dispatcher = Dispatcher(encoder, budget)
    results = encoded(dispatcher, list(range(128)))  # 512 padded tokens
    dispatcher.stop(10)
    assert all(isinstance(result, np.ndarray) for result in results)
    assert encoder.rebuilt == 1
    assert budget.ceiling == 256


def test_a_text_alone_says_nothing_of_batches(encoder: Recorder) -> None:
    encoder.gate.set()
    encoder.room = 3
    budget = BatchBudget(512)
    dispatcher = Dispatcher(encoder, budget)
    (vector,) = encoded(dispatcher, [5])
    dispatcher.stop(10)
    assert isinstance(vector, np.ndarray)
    assert (dispatcher.out_of_memory, budget.ceiling) == (1, None)


@pytest.mark.parametrize("before", [None, 256])
def test_what_others_fill_says_nothing_of_batches(encoder: Recorder, before: int | None) -> None:
    encoder.gate.set()
    known = Known(memory=Ceiling(before, int(time.time()))) if before else None
    budget = BatchBudget(512, known=known)
    dispatcher = Dispatcher(encoder, budget)
    encoder.room = encoder.after_rebuild = 3
    errors = encoded(dispatcher, list(range(64)))
    assert all(isinstance(error, EncodingError) and error.retryable for error in errors)
    assert dispatcher.out_of_memory == 7 + 6, "halved once, down to a text, and its other halves not again"
    encoder.room = 10**9
    assert all(isinstance(result, np.ndarray) for result in encoded(dispatcher, list(range(64))))
    dispatcher.stop(10)
    assert budget.ceiling == before
    assert max(budget.next_size() for _ in range(9)) >= (before or 512)


def test_a_text_that_no_memory_holds_lowers_the_batches_once(encoder: Recorder) -> None:
    encoder.gate.set()
    encoder.room = encoder.after_rebuild = 50
    budget = BatchBudget(2048)
    dispatcher = Dispatcher(encoder, budget)
    answers: queue.SimpleQueue[Results] = queue.SimpleQueue()
    texts = [*(text(number) for number in range(7)), long(100)]
    dispatcher.submit(Urgency.BACKFILL, texts, 2048, answers.put)
    assert sum(isinstance(result, Exception) for result in answers.get(timeout=30)) == 1
    dispatcher.stop(10)
    assert budget.ceiling == 400, "half of 8 × 100, and not of what the text was halved to"


def test_an_error_of_no_text_is_not_halved(encoder: Recorder, dispatcher: Dispatcher) -> None:
    asked: list[int] = []

    def fails(batch: list[Tokens]) -> Vector:
        asked.append(len(batch))
        raise EncodingError("encode", "what fp16 cannot hold", "no fp32", retryable=True)

    encoder.encode = fails  # type: ignore[method-assign]
    errors = encoded(dispatcher, list(range(16)))
    assert len(errors) == 16
    assert all(isinstance(error, EncodingError) and error.retryable for error in errors)
    assert asked == [16]


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


def test_whatever_ends_its_thread_ends_the_process(dispatcher: Dispatcher, encoder: Recorder) -> None:
    """A fault of ours in what is done with the vectors: nobody would encode any more, and nobody say so."""
    encoder.gate.set()

    def fails(results: Results) -> None:
        raise ZeroDivisionError("of ours")

    dispatcher.submit(Urgency.LIVE, encoder.tokenize(["text"]), 64, fails)
    until("it gives up", lambda: dispatcher.lost is not None)
    assert "of ours" in str(dispatcher.lost)
