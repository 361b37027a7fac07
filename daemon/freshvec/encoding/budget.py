"""How many padded tokens a batch should have: found by measuring, bounded by memory and by patience.

Large batches suit a GPU, small ones a CPU, whose caches they fit. So the search goes in both directions:
neighbouring sizes take turns batch by batch, so that all see the same texts, and the search moves to the size
that encodes most tokens per second, until the size in the middle is the best.
"""

import statistics
import threading
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

from freshvec.encoding.ceiling import Ceiling, found
from freshvec.encoding.noted import note, read

_STEP = 2
_WARM = 4  # first batches of a size; they may have to wait for the device's allocator
_SAMPLES = 12  # further batches of each size before they are compared
_BETTER = 1.03  # a size must be this much faster for the search to move
_SLOW = 3  # batches in a row that are too slow before their size is given up: one may have had bad luck
_SETTLED_BATCHES = 2000  # then look again: texts and machines change
_SMALLEST = 64


class BatchBudget:
    """Padded tokens per batch. Several threads may ask and tell it at once.

    `first` is the first guess, in padded tokens. `latency_seconds` is how long an urgent change may wait for
    the batch before it. `known` is what was learnt before.
    """

    def __init__(
        self,
        first: int,
        *,
        latency_seconds: float = 0.125,
        fixed: bool = False,
        known: "Known | None" = None,
    ) -> None:
        self._lock = threading.Lock()  # one thread at a time exchanges what the search has measured
        self._memory = known.memory if known else None
        self._memory_before: Ceiling | None = None  # that counts no more
        self._latency = latency_seconds
        self.fixed = fixed  # as configured: nothing is searched, nothing remembered
        self._given = first
        self.first = first = self.bounded(first)  # of a file that another version wrote, it may be more
        self.is_hurried = bool(
            known and known.is_hurried
        )  # larger sizes were left out since they would take too long
        self._middle = first
        self._sizes = [first]
        self._turn = 0
        self._settled_for = 0
        self._rates: dict[int, deque[float]] = {}
        self._seconds: dict[int, deque[float]] = {}  # of the last batches of a size
        self._rate: float | None = None  # tokens per second at the middle
        if not fixed and not (known and known.is_settled):
            self._explore()

    @property
    def memory(self) -> Ceiling | None:
        """What the device's memory is known to hold; None where nothing is known."""
        return self._memory

    @property
    def ceiling(self) -> int | None:
        """The same in padded tokens."""
        return self._memory.padded if self._memory else None

    @property
    def settled(self) -> int:
        """The size the search stands at, in padded tokens."""
        return self._middle

    @property
    def is_settled(self) -> bool:
        """Whether the search has found its size."""
        return len(self._sizes) == 1

    @property
    def has_moved(self) -> bool:
        """Whether the search stands elsewhere than it began."""
        return self._middle != self.first

    def bounded(self, size: int) -> int:
        """At most what the device's memory is known to hold."""
        return min(size, self.ceiling or size)

    def next_size(self) -> int:
        """The size of the next batch, in padded tokens."""
        with self._lock:
            if self._memory and self._memory.is_past:
                self._bound(None)
            self._turn += 1
            return self._sizes[self._turn % len(self._sizes)]

    def observe(self, size: int, padded: int, tokens: int, seconds: float) -> None:
        """A batch planned for `size` had `padded` tokens, `tokens` of them real, and took `seconds`."""
        if self.fixed or padded < 0.7 * size or seconds <= 0:
            return  # a batch that was not full says nothing about its size
        with self._lock:
            self._learn(size, tokens, seconds)

    def _learn(self, size: int, tokens: int, seconds: float) -> None:
        """What a full batch says, and where the search goes for it."""
        self._rates.setdefault(size, deque(maxlen=_WARM + _SAMPLES)).append(tokens / seconds)
        last = self._seconds.setdefault(size, deque(maxlen=_SLOW))
        last.append(seconds)
        if len(last) == _SLOW and min(last) > 2 * self._latency and size in self._sizes and size > _SMALLEST:
            self._shrink(size, tokens / min(last))  # too slow to be tried again, however efficient
        elif self.is_settled:
            self._settled_for += 1
            if self._settled_for > _SETTLED_BATCHES:
                self._explore()
            elif self.is_hurried:
                self._hurry_less()
        elif all(len(self._rates.get(each, ())) >= _WARM + _SAMPLES for each in self._sizes):
            self._move()

    def out_of_memory(self, padded: int) -> Ceiling:
        """A batch of `padded` tokens did not fit: do not try as many again, for some time."""
        with self._lock:
            most = max(_SMALLEST, padded // 2)
            self._memory = self._memory.lower(most) if self._memory else found(most, self._memory_before)
            self._sizes = list(map(self.bounded, self._sizes))
            self._middle = self.bounded(self._middle)
            return self._memory

    def allow(self, ceiling: int | None) -> None:
        """So many may be tried again, None: any number. It was not their size that found no room."""
        with self._lock:
            if self._memory and (ceiling is None or ceiling > self._memory.padded):
                self._bound(replace(self._memory, padded=ceiling) if ceiling else None)

    def _bound(self, memory: Ceiling | None) -> None:
        """Look again which size is best, up to another ceiling."""
        self._memory_before, self._memory = self._memory, memory
        if self.fixed:
            self._middle = self.bounded(self._given)
            self._sizes = [self._middle]
        else:
            self._middle = self.bounded(max(self._middle, self.first))
            self._explore()

    def _hurry_less(self) -> None:
        """Begin again with a larger size where it would not take too long any more: what else ran has
        ended."""
        rates = self._rates.get(self._middle, ())
        if len(rates) < _WARM + _SAMPLES:
            return
        self._rate = statistics.median(rates)
        fitting, most = self._middle, max(self.first, _STEP * self._middle)
        while fitting < most and self._takes(_STEP * fitting) <= self._latency:
            fitting *= _STEP
        if fitting > self._middle:
            self._middle = fitting
            self._explore()

    def _shrink(self, size: int, rate: float) -> None:
        """Go on with sizes under `size`, which encoded `rate` tokens per second."""
        self._rate = rate
        self._middle = max(_SMALLEST, min(self._middle, size // _STEP))
        self._explore()

    def _explore(self) -> None:
        """Let the sizes beside the middle take turns with it."""
        self._middle = self.bounded(self._middle)
        around = (self._middle // _STEP, self._middle, self._middle * _STEP)
        allowed = [size for size in around if size >= _SMALLEST and size <= (self.ceiling or size)]
        self._sizes = [size for size in allowed if self._takes(size) <= self._latency] or [min(allowed)]
        self.is_hurried = len(self._sizes) < len(allowed)
        self._middle = min(self._middle, max(self._sizes))
        self._rates, self._seconds = {}, {}
        self._settled_for = 0

    def _move(self) -> None:
        """Go on with the best of the sizes that took turns."""
        # The upper quartile: what a size reaches when nothing else disturbs it.
        rates = {size: statistics.quantiles(list(self._rates[size])[_WARM:], n=4)[2] for size in self._sizes}
        quick = [size for size in self._sizes if size / rates[size] <= self._latency] or [min(self._sizes)]
        best = max(quick, key=rates.__getitem__)
        if self._middle in quick and rates[best] < rates[self._middle] * _BETTER:
            best = self._middle
        self._rate = rates[best]
        if best == self._middle:
            self.is_hurried = self.is_hurried or len(quick) < len(self._sizes)
            self._sizes = [best]
            self._rates = {}
            self._settled_for = 0
            return
        self._middle = best
        self._explore()

    def _takes(self, size: int) -> float:
        """How long a batch of that size takes at the last known rate; 0 where none is known."""
        return size / self._rate if self._rate else 0.0


def first_guess(free_gigabytes: float | None, precision: str = "fp32") -> int:
    """Padded tokens to begin with: 64/128/256 texts of 64 tokens for 4/8/16 GB free; 1,024 on a CPU, or
    2,048 where it computes in bf16."""
    if free_gigabytes is None:
        return 2048 if precision == "bf16" else 1024
    return max(1024, 1 << (int(free_gigabytes * 1024).bit_length() - 1))


@dataclass(frozen=True)
class Known:
    """What was learnt before about a model on a device, in padded tokens; None where nothing was."""

    size: int | None = None
    memory: Ceiling | None = None
    is_settled: bool = False  # whether the search had ended there
    is_hurried: bool = False  # larger sizes were left out then


class BudgetMemory:
    """Keeps the result of the search across restarts, in one small file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "budgets.json"
        self._kept: dict[str, dict[str, int | None]] = read(self.path)  # without, the search begins anew

    def recall(self, model: str, device: str) -> Known:
        """What is known of the model on the device."""
        entry = self._kept.get(f"{model} on {device}", {})
        memory = _noted(entry)
        if memory is not None and memory.is_past:
            return Known()  # the size was bounded by it
        return Known(entry.get("size"), memory, bool(entry.get("settled")), bool(entry.get("hurried")))

    def ceilings(self, model: str) -> dict[str, int]:
        """Where the model ran out of memory, as it was noted, and the sizes that it may have there since."""
        places = [name.partition(" on ")[2] for name in self._kept if name.startswith(f"{model} on ")]
        known = {place: self.recall(model, place).memory for place in places}
        return {place: memory.padded for place, memory in known.items() if memory is not None}

    def keep(self, model: str, device: str, budget: BatchBudget) -> None:
        """Note where the search stands, once it has learnt something.

        A size that is small since batches took too long is noted a step at a time: it may be that something
        else kept the machine busy.
        """
        least = budget.first // _STEP if budget.is_hurried else 0
        known = self._kept.get(f"{model} on {device}", {})
        size = budget.bounded(max(budget.settled, least))
        entry = {
            "size": size,
            **_entry(budget.memory),
            "settled": budget.is_settled and not budget.fixed and size == budget.settled,
            "hurried": budget.is_hurried,
        }
        has_learnt = budget.ceiling or ((budget.is_settled or budget.has_moved) and not budget.fixed)
        if not has_learnt or known == entry:
            return
        self._kept[f"{model} on {device}"] = entry
        note(self.path, f"{model} on {device}", entry)


def _entry(memory: Ceiling | None) -> dict[str, int | None]:
    """What is noted of a ceiling."""
    if memory is None:
        return {"ceiling": None}
    return {"ceiling": memory.padded, "ceiling_at": memory.at, "ceiling_seconds": memory.seconds}


def _noted(entry: dict[str, int | None]) -> Ceiling | None:
    """The ceiling of an entry, which may be of a version that noted less."""
    if not entry.get("ceiling"):
        return None
    given = {"padded": "ceiling", "at": "ceiling_at", "seconds": "ceiling_seconds"}
    return Ceiling(**{"at": 0} | {name: value for name, key in given.items() if (value := entry.get(key))})
