"""Batches, budgets, order of work, poison, memory: the encoder's parts without a model."""

import math
import random
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freshvec.encoding.batching import padded, padding_waste, plan_batches
from freshvec.encoding.budget import BatchBudget, BudgetMemory, first_guess
from freshvec.encoding.dispatch import Dispatcher
from freshvec.encoding.tokenizer import Tokenizer, TokenizerPool
from freshvec.encoding.vector_cache import RecentVectors
from freshvec.errors import EncodingError
from freshvec.records import OutOfMemoryError, Tokens, Urgency, Vector
from tests.support import NullEncoder, until

LENGTHS = st.lists(st.integers(1, 600), max_size=200)


@given(LENGTHS, st.integers(1, 5000))
def test_every_text_is_in_one_batch_and_the_budget_is_kept(lengths: list[int], size: int) -> None:
    batches = plan_batches(lengths, lambda: size, max_rows=50)
    assert sorted(i for batch in batches for i in batch.indices) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[i] for i in batch.indices)
        assert longest * len(batch.indices) <= size or len(batch.indices) == 1
        assert len(batch.indices) <= 50
    assert 0 <= padding_waste(lengths, batches) < 1


@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=20), min_size=1, max_size=20),
    st.sampled_from([1, 8, 16]),
)
def test_padding_is_on_the_right_and_masked(texts: list[list[int]], step: int) -> None:
    ids, mask = padded([Tokens(np.array(text, dtype=np.int64)) for text in texts], 0, step)
    assert ids.shape == mask.shape
    assert ids.shape[1] % step == 0
    for row, text in enumerate(texts):
        assert ids[row, : len(text)].tolist() == text
        assert mask[row].tolist() == [1] * len(text) + [0] * (ids.shape[1] - len(text))


def simulate(budget: BatchBudget, best: int, peak: float, memory: int | None = None, seed: int = 0) -> float:
    """Tokens a second at the size the search settles on, of a device fastest at `best`, as a share of that."""
    noise = random.Random(seed)

    def rate(size: int) -> float:
        return peak / (1 + 0.06 * math.log2(size / best) ** 2)

    for _ in range(4000):
        size = budget.next_size()
        if memory is not None and size > memory:
            budget.out_of_memory(size)
            continue
        budget.observe(size, size, size, size / rate(size) * noise.uniform(0.9, 1.1))
        if budget.is_settled:
            break
    assert budget.is_settled
    return rate(budget.settled) / peak


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("first", "best", "peak"),
    [
        (1024, 512, 9e3),
        (1024, 1024, 9e3),
        (64, 512, 9e3),
        (1024, 65536, 4e6),
        (81920, 262144, 6e6),
        (81920, 16384, 6e6),
    ],
)
def test_the_search_finds_the_best_size_in_both_directions(
    first: int, best: int, peak: float, seed: int
) -> None:
    assert simulate(BatchBudget(first), best, peak, seed=seed) >= 0.9


@pytest.mark.parametrize("memory", [1000, 5000, 100_000])
def test_the_search_stays_within_memory_and_never_dies(memory: int) -> None:
    budget = BatchBudget(81920)
    simulate(budget, best=500_000, peak=6e6, memory=memory)
    assert memory / 4 <= budget.settled <= memory


def test_a_slow_device_is_not_given_batches_that_keep_a_live_change_waiting() -> None:
    budget = BatchBudget(8192)
    simulate(budget, best=8192, peak=9e3)
    assert budget.settled / 9e3 <= 0.3


def test_what_was_found_outlives_a_restart(tmp_path: Path) -> None:
    budget = BatchBudget(4096)
    budget.out_of_memory(4096)
    BudgetMemory(tmp_path).keep("m", "cuda", budget)
    assert BudgetMemory(tmp_path).recall("m", "cuda").ceiling == 2048
    assert BudgetMemory(tmp_path).recall("m", "cpu").ceiling is None


def test_first_guess_follows_the_ladder() -> None:
    assert [first_guess(gb) for gb in (None, 4, 8, 16, 80)] == [1024, 4096, 8192, 16384, 65536]


class Recorder(NullEncoder):
    """Notes the first token of every batch, and can be held up."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.order: list[int] = []
        self.broken = False
        self.limit = 10**9
        self.rebuilt = 0

    def rebuild(self) -> None:
        self.rebuilt += 1
        self.limit = max(self.limit, 8)

    def encode(self, batch: list[Tokens]) -> Vector:
        self.gate.wait(10)
        if self.broken:
            raise RuntimeError("the runtime is broken")
        if max(map(len, batch)) * len(batch) > self.limit:
            raise OutOfMemoryError("Failed to allocate memory for requested buffer of size 1")
        if any(text.ids[0] == 666 for text in batch):
            raise RuntimeError("poison")
        self.order.append(int(batch[0].ids[0]))
        return np.array([[text.ids[0]] * self.dimension for text in batch], dtype=np.float32)


def text(number: int) -> Tokens:
    return Tokens(np.array([number, 0, 0, 0], dtype=np.int64))


def run(
    dispatcher: Dispatcher, numbers: list[int], urgency: Urgency = Urgency.LIVE
) -> list[Vector | Exception]:
    results: list[list[Vector | Exception]] = []
    dispatcher.submit(urgency, [text(number) for number in numbers], 64, results.append)
    until("the batch is encoded", lambda: results)
    return results[0]


def test_the_most_urgent_goes_first_and_none_waits_for_ever() -> None:
    encoder = Recorder()
    dispatcher = Dispatcher(encoder, BatchBudget(64, fixed=True))
    done: list[object] = []
    for number, urgency in enumerate([Urgency.BACKFILL] * 3 + [Urgency.BULK] * 3 + [Urgency.LIVE] * 10):
        dispatcher.submit(urgency, [text(number)], 64, done.append)
    encoder.gate.set()
    until("all are encoded", lambda: len(done) == 16)
    dispatcher.stop(5)
    rest = [number for number in encoder.order if number != encoder.order[0]]
    assert encoder.order[0] in (0, 6), "the first may have been taken before the others came"
    assert rest[:5] == [n for n in range(6, 16) if n != encoder.order[0]][:5]
    assert rest.index(0 if encoder.order[0] != 0 else 1) < 8, "the oldest backfill batch had its fair turn"


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from([1, 2, 3, 666]), min_size=1, max_size=40))
def test_poison_costs_no_other_text_its_vector(numbers: list[int]) -> None:
    encoder = Recorder()
    encoder.gate.set()
    dispatcher = Dispatcher(encoder, BatchBudget(64, fixed=True))
    results = run(dispatcher, numbers)
    dispatcher.stop(5)
    assert len(results) == len(numbers)
    for number, result in zip(numbers, results, strict=True):
        assert (
            isinstance(result, RuntimeError)
            if number == 666
            else isinstance(result, np.ndarray) and result[0] == number
        )


def test_a_broken_runtime_is_not_blamed_on_the_texts() -> None:
    encoder = Recorder()
    encoder.gate.set()
    encoder.broken = True
    dispatcher = Dispatcher(encoder, BatchBudget(64, fixed=True))
    (result,) = run(dispatcher, [1])
    dispatcher.stop(5)
    assert isinstance(result, EncodingError)
    assert result.retryable


def test_out_of_memory_halves_then_rebuilds_then_gives_up() -> None:
    encoder = Recorder()
    encoder.gate.set()
    encoder.limit = 16
    budget = BatchBudget(64)
    dispatcher = Dispatcher(encoder, budget)
    assert [int(v[0]) for v in run(dispatcher, list(range(16))) if isinstance(v, np.ndarray)] == list(
        range(16)
    )
    assert budget.ceiling == 64  # the smallest a budget goes
    encoder.limit = 3
    (vector,) = run(dispatcher, [5])
    assert encoder.rebuilt == 1
    assert isinstance(vector, np.ndarray)
    encoder.rebuild = lambda: None  # type: ignore[method-assign]
    encoder.limit = 3
    (error,) = run(dispatcher, [5])
    dispatcher.stop(5)
    assert isinstance(error, EncodingError)
    assert error.retryable


def test_recent_vectors_are_bounded() -> None:
    recent = RecentVectors(4, capacity_bytes=10 * (16 + 400))
    for number in range(100):
        recent.put(bytes([number]), np.full(4, number, dtype=np.float32))
    assert recent.get(bytes([89])) is None
    found = recent.get(bytes([99]))
    assert found is not None
    assert found[0] == 99


def test_a_pool_of_tokenizers_gives_what_one_gives(models_dir: Path) -> None:
    path = models_dir / "all-MiniLM-L6-v2" / "tokenizer.json"
    texts = [f"text number {n} " * (n % 120) for n in range(700)]
    pool = TokenizerPool(path, 256, "", processes=2)
    for count in (3, 700):
        one, many = Tokenizer(path, 256).encode(texts[:count]), pool.encode(texts[:count])
        assert [(t.ids.tolist(), t.truncated) for t in many] == [(t.ids.tolist(), t.truncated) for t in one]
    assert many[0].ids.dtype == np.int64
    pool.close()


def test_what_nobody_wants_any_more_is_not_encoded() -> None:
    encoder = Recorder()
    dispatcher = Dispatcher(encoder, BatchBudget(64, fixed=True))
    done: list[object] = []
    for number, owner in enumerate(["first", "gone", "gone", "stays"]):
        dispatcher.submit(Urgency.BULK, [text(number)], 64, done.append, owner=owner)
    until("the first batch is in hand", lambda: len(dispatcher._jobs) == 3)
    dispatcher.forget("gone")
    encoder.gate.set()
    until("the rest is encoded", lambda: len(done) == 2)
    dispatcher.stop(5)
    assert encoder.order == [0, 3]
