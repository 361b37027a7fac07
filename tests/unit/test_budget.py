"""The search for the batch size: in both directions, within memory and patience, kept across restarts."""

import json
import math
import random
import statistics
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from freshvec.encoding.budget import BatchBudget, BudgetMemory, first_guess


def simulate(budget: BatchBudget, best: int, peak: float, memory: int | None = None, seed: int = 0) -> float:
    """The rate at the size the search settles on, as a share of `peak`; the device is fastest at `best`.

    `peak` is in tokens per second; `memory` is the number of padded tokens that fit.
    """
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


@pytest.mark.parametrize(
    ("age", "known"),
    [(3600, (64, 64)), (90_000, (None, None)), (-90_000, (None, None)), (None, (None, None))],
)
def test_a_ceiling_is_forgotten_after_a_day(
    tmp_path: Path, age: int | None, known: tuple[int | None, int | None]
) -> None:
    """It may have been others who had the memory, or the clock was ahead."""
    noted = {"size": 64, "ceiling": 64, **({"ceiling_at": time.time() - age} if age else {})}
    (tmp_path / "budgets.json").write_text(json.dumps({"m on cpu": noted, "n on cpu": {"size": 512}}))
    found = BudgetMemory(tmp_path).recall("m", "cpu")
    assert (found.size, found.memory and found.memory.padded) == known
    assert BudgetMemory(tmp_path).recall("n", "cpu").size == 512


def test_a_size_that_was_configured_is_not_noted_as_found(tmp_path: Path) -> None:
    budget = BatchBudget(4096, fixed=True)
    budget.out_of_memory(4096)
    BudgetMemory(tmp_path).keep("m", "cpu", budget)
    assert BudgetMemory(tmp_path).ceilings("m") == {"cpu": 2048}
    assert not BudgetMemory(tmp_path).recall("m", "cpu").is_settled


def test_a_ceiling_is_never_under_the_smallest_size() -> None:
    budget = BatchBudget(64)
    budget.out_of_memory(64)
    assert budget.ceiling == 64


def test_what_the_search_learnt_outlives_a_restart(tmp_path: Path) -> None:
    budget = BatchBudget(4096)
    budget.out_of_memory(4096)
    BudgetMemory(tmp_path).keep("m", "cuda", budget)
    assert BudgetMemory(tmp_path).ceilings("m") == {"cuda": 2048}
    assert BudgetMemory(tmp_path).recall("m", "cpu").memory is None


def observe(budget: BatchBudget, rate: float, batches: int) -> None:
    """Full batches, of which each is encoded at that rate."""
    for _ in range(batches):
        size = budget.next_size()
        budget.observe(size, size, size, size / rate)


def test_one_batch_that_had_to_wait_says_nothing_of_its_size() -> None:
    budget = BatchBudget(1024)
    observe(budget, 9000, 200)
    found = budget.settled
    observe(budget, 100, 2)
    observe(budget, 9000, 20)
    assert budget.settled == found >= 512


def test_sizes_that_were_left_out_on_a_busy_machine_are_tried_again_on_a_quiet_one() -> None:
    budget = BatchBudget(1024)
    observe(budget, 700, 200)
    assert budget.settled <= 128
    assert budget.is_settled
    budget.observe(1024, 1024, 1024, 1024 / 700)  # planned before
    observe(budget, 9000, 200)
    assert budget.settled >= 512


def test_what_was_learnt_on_a_busy_machine_is_kept_a_step_at_a_time(tmp_path: Path) -> None:
    budget = BatchBudget(1024)
    observe(budget, 700, 200)
    for _ in range(3):  # as housekeeping does
        BudgetMemory(tmp_path).keep("m", "cpu", budget)
    assert BudgetMemory(tmp_path).recall("m", "cpu").size == 512


def test_memory_may_run_out_in_one_thread_while_another_compares_sizes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    budget = BatchBudget(1024)
    budget.out_of_memory(8192)
    quantiles, others = statistics.quantiles, list[threading.Thread]()

    def interrupted(rates: list[float], n: int) -> list[float]:
        """Another thread comes between two of them, unless it has to wait for the end of all."""
        others.append(threading.Thread(target=budget.allow, args=(None,)))
        others[-1].start()
        others[-1].join(0.05)
        return quantiles(rates, n=n)

    monkeypatch.setattr(statistics, "quantiles", interrupted)
    observe(budget, 9000, 60)
    for other in others:
        other.join()
    assert others
    assert budget.ceiling is None


def test_first_guess_follows_the_ladder() -> None:
    assert [first_guess(gb) for gb in (None, 4, 8, 16, 80)] == [1024, 4096, 8192, 16384, 65536]


def test_what_was_found_is_not_looked_for_again_at_each_start(tmp_path: Path) -> None:
    budget = BatchBudget(1024)
    observe(budget, 9000, 200)
    assert budget.is_settled
    BudgetMemory(tmp_path).keep("m", "cpu", budget)
    known = BudgetMemory(tmp_path).recall("m", "cpu")
    again = BatchBudget(known.size or 0, known=known)
    assert {again.next_size() for _ in range(50)} == {budget.settled}


def test_a_search_that_a_short_backfill_cut_off_goes_on_where_it_stood(tmp_path: Path) -> None:
    budget = BatchBudget(64)
    while not budget.has_moved:
        size = budget.next_size()
        budget.observe(size, size, size, 0.001 + size / 1e6)  # the larger the quicker
    assert not budget.is_settled
    BudgetMemory(tmp_path).keep("m", "cpu", budget)
    known = BudgetMemory(tmp_path).recall("m", "cpu")
    assert known.size == budget.settled > 64
    assert not known.is_settled


def test_where_memory_ran_out_is_listed_by_place(tmp_path: Path) -> None:
    budget = BatchBudget(4096)
    BudgetMemory(tmp_path).keep("m", "nowhere", budget)
    budget.out_of_memory(4096)
    BudgetMemory(tmp_path).keep("m", "cuda in fp16, a machine", budget)
    BudgetMemory(tmp_path).keep("n", "cuda in fp16, a machine", budget)
    assert BudgetMemory(tmp_path).ceilings("m") == {"cuda in fp16, a machine": 2048}


def test_a_size_that_was_found_on_a_busy_machine_grows_on_a_quiet_one(tmp_path: Path) -> None:
    budget = BatchBudget(512)
    observe(budget, 3000, 200)
    assert budget.settled == 256
    BudgetMemory(tmp_path).keep("m", "cpu", budget)
    known = BudgetMemory(tmp_path).recall("m", "cpu")
    again = BatchBudget(known.size or 0, known=known)
    observe(again, 9000, 200)
    assert again.settled > 256


def test_a_small_size_that_was_found_in_a_hurry_is_kept_within_memory(tmp_path: Path) -> None:
    budget = BatchBudget(8192)
    for _ in range(3):
        budget.observe(8192, 8192, 8000, 0.5)
    budget.out_of_memory(2048)
    BudgetMemory(tmp_path).keep("m", "cuda", budget)
    known = BudgetMemory(tmp_path).recall("m", "cuda")
    assert known.memory
    assert known.size == known.memory.padded == 1024


@pytest.mark.parametrize("settled", [True, False])
def test_a_size_that_was_noted_beyond_its_ceiling_is_bounded_by_it(tmp_path: Path, settled: bool) -> None:
    noted = {"size": 4096, "ceiling": 1024, "ceiling_at": time.time(), "settled": settled, "hurried": True}
    (tmp_path / "budgets.json").write_text(json.dumps({"m on cuda": noted}))
    known = BudgetMemory(tmp_path).recall("m", "cuda")
    budget = BatchBudget(known.size or 0, known=known)
    assert max(budget.next_size() for _ in range(9)) == 1024


def test_where_there_is_no_hurry_any_more_memory_still_bounds_the_size() -> None:
    budget = BatchBudget(8192)
    for _ in range(3):
        budget.observe(8192, 8192, 8000, 0.5)
    budget.out_of_memory(2048)
    observe(budget, 1e7, 200)
    assert budget.settled == budget.ceiling == 1024


class Clock:
    """The wall clock, which a test puts forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.time()
        monkeypatch.setattr(time, "time", lambda: self.now)


@pytest.mark.parametrize("fixed", [False, True])
def test_what_did_not_fit_is_tried_again_ever_more_seldom(
    monkeypatch: pytest.MonkeyPatch, fixed: bool
) -> None:
    """Others may have had the memory, for a minute or for ever."""
    clock, budget, waits = Clock(monkeypatch), BatchBudget(1024, fixed=fixed), list[float]()
    for _ in range(12):
        budget.out_of_memory(512)
        budget.out_of_memory(256)
        began = clock.now
        while budget.ceiling is not None:
            assert max(budget.next_size() for _ in range(9)) == 128
            clock.now += 60
            budget.next_size()
        waits.append(clock.now - began)
        assert max(budget.next_size() for _ in range(9)) >= 1024
    assert waits[0] == pytest.approx(300, abs=60)
    assert all(1.5 < later / sooner <= 2.5 or later > 86_000 for sooner, later in pairwise(waits))
    assert waits[-1] == pytest.approx(86_400, abs=60)
    clock.now += 3 * 86_400
    budget.out_of_memory(256)
    clock.now += 301
    assert max(budget.next_size() for _ in range(9)) >= 1024, "another time, others may have it again"


def test_a_ceiling_keeps_its_age_over_a_restart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock, budget = Clock(monkeypatch), BatchBudget(1024)
    budget.out_of_memory(256)
    clock.now += 200
    BudgetMemory(tmp_path).keep("m", "cpu", budget)
    again = BatchBudget(1024, known=BudgetMemory(tmp_path).recall("m", "cpu"))
    assert again.memory == budget.memory
    assert max(again.next_size() for _ in range(9)) == 128
    clock.now += 101
    assert max(again.next_size() for _ in range(9)) > 128
