"""The ledger of one sync: what has been read and is not yet written. Reader and writer meet here, nowhere
else.

Its methods are called on the reader's thread, the writer's and the encoder's; one lock covers all of it.
"""

import itertools
import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from freshvec.pipeline.rests import Rests
from freshvec.records import Entry, Key, Outcome, Urgency


@dataclass(eq=False, slots=True)
class Portion:
    """Rows that were read together.

    `entries` are the queue entries that each row answers. `last_key` is set for a page of a backfill: its
    checkpoint; `not_fresh` counts its rows that were not as they should be. `number` is that of the range
    that the page is of, where the walk has some, `ends` whether it is the last one of it. `fills`: the target
    will have nothing of its rows yet.
    """

    urgency: Urgency
    fence: int
    rows: int
    entries: Mapping[Key, tuple[Entry, ...]] = field(default_factory=dict)
    last_key: Key | None = None
    not_fresh: int = 0
    number: int | None = None
    ends: bool = False
    fills: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """Rows of one portion, ready to be written."""

    portion: Portion
    outcomes: list[Outcome]

    def entries(self, held_back: Collection[Key] = ()) -> list[Entry]:
        """The queue entries that these rows answer, but for those that were not to be had."""
        return [
            entry
            for outcome in self.outcomes
            if outcome.key not in held_back
            for entry in self.portion.entries.get(outcome.key, ())
        ]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Up to this key every row is written; so many rows more have been passed, so many of them not fresh. Of
    a range, where it has a number; `ends`: all of its rows are."""

    key: Key | None
    rows: int
    not_fresh: int
    number: int | None = None
    ends: bool = False


class Ledger:
    """Every row read is opened here in its portion, becomes ready in one outcome, and is settled once
    committed."""

    def __init__(self, on_ready: Callable[[Urgency], None] = lambda urgency: None) -> None:
        self.failure: Exception | None = None
        self.has_missed = False  # entries were not where they had been read: others may be unread
        self.rests = Rests()
        self._lock = threading.Lock()
        self._unwritten: dict[Portion, int] = {}  # rows, by portion in the order of reading
        self._pages: deque[Portion] = deque()  # of the backfill, in key order
        self._ahead = math.inf  # the earliest fence that a page may have which is not opened yet
        self._in_flight = dict.fromkeys(Urgency, 0)  # rows
        self._entries: dict[Urgency, set[Entry]] = {urgency: set() for urgency in Urgency}
        self._on_ready = on_ready
        self._ready: deque[Ready] = deque()

    def expect(self, fence: float) -> None:
        """A page is about to be read under this fence, or a later one; infinity: none is that matters."""
        with self._lock:
            self._ahead = fence

    def open(self, portion: Portion) -> None:
        """These rows have been read."""
        with self._lock:
            self._unwritten[portion] = portion.rows
            self._in_flight[portion.urgency] += portion.rows
            for entries in portion.entries.values():
                self._entries[portion.urgency].update(entries)
            if portion.last_key is not None or portion.ends:
                self._pages.append(portion)
        if not portion.rows:  # a range's last page that came empty: what is to be written is its end
            self._ready.append(Ready(portion, []))
            self._on_ready(portion.urgency)

    def put(self, portion: Portion, outcomes: list[Outcome]) -> None:
        """These rows are ready to be written. Never blocks: the reader's read-ahead bounds what is put."""
        if outcomes:
            self._ready.append(Ready(portion, outcomes))
            self._on_ready(portion.urgency)

    def fail(self, error: Exception) -> None:
        """The encoder fails on every text: only a new pipeline can go on. The first error stays: by it the
        pipeline knows that what was encoded before can be written."""
        self.failure = self.failure or error
        self._on_ready(Urgency.LIVE)

    def take(self) -> list[Ready]:
        """What has become ready since the last time."""
        taken = []
        while self._ready:
            taken.append(self._ready.popleft())
        return taken

    def reached(self, written: Iterable[Ready]) -> list[Checkpoint]:
        """How far the backfill is once these are written too: to the end of the unbroken run of whole
        pages. One for each range that is among them."""
        with self._lock:
            # A page may be written whole before the one ahead of it.
            left = {page: self._unwritten.get(page, 0) for page in self._pages}
            for ready in written:
                if ready.portion in left:
                    left[ready.portion] -= len(ready.outcomes)
            whole = list(itertools.takewhile(lambda page: not left[page], self._pages))
        return [
            _checkpoint(list(pages)) for _, pages in itertools.groupby(whole, key=lambda page: page.number)
        ]

    def has_older(self, portion: Portion) -> bool:
        """Whether an older reading that may be of the same rows is still to be written.

        Pages of one walk have no row in common.
        """
        is_page = portion.urgency is Urgency.BACKFILL
        with self._lock:
            return (self._ahead < portion.fence and not is_page) or any(
                other.fence < portion.fence and not (is_page and other.urgency is Urgency.BACKFILL)
                for other in self._unwritten
                if other is not portion
            )

    def oldest_fence(self) -> float:
        """The fence of the oldest reading still to be written; infinity when there is none."""
        with self._lock:
            return min(self._ahead, *(portion.fence for portion in self._unwritten), math.inf)

    def settle(self, written: Iterable[Ready], *, missed: bool = False) -> None:
        """These rows are committed; `missed`: not all that was read for them was where it had been."""
        with self._lock:
            self.has_missed |= missed  # before nothing is in flight, which would be called fresh
            for ready in written:
                portion, rows = ready.portion, len(ready.outcomes)
                self._in_flight[portion.urgency] -= rows
                self._unwritten[portion] -= rows
                self._entries[portion.urgency].difference_update(ready.entries())
                if not self._unwritten[portion]:
                    del self._unwritten[portion]
            while self._pages and self._pages[0] not in self._unwritten:
                self._pages.popleft()

    def in_flight(self, urgency: Urgency | None = None) -> int:
        """Rows read and not yet written, of one urgency or of all."""
        with self._lock:
            return sum(self._in_flight.values()) if urgency is None else self._in_flight[urgency]

    def readings(self, urgency: Urgency) -> Counter[Key]:
        """How often each row was read from the queue, in portions that are not yet written whole."""
        with self._lock:
            return Counter(
                key for portion in self._unwritten if portion.urgency is urgency for key in portion.entries
            )

    def entries(self, urgency: Urgency) -> list[Entry]:
        """Queue entries handed out and not yet deleted, and those that are not to be read yet."""
        with self._lock:
            return [*self._entries[urgency], *self.rests.entries(urgency)]


def _checkpoint(pages: list[Portion]) -> Checkpoint:
    """That of pages of one range, the last of which may be empty."""
    keys = [page.last_key for page in pages if page.last_key is not None]
    rows, not_fresh = sum(page.rows for page in pages), sum(page.not_fresh for page in pages)
    last = pages[-1]
    return Checkpoint(keys[-1] if keys else None, rows, not_fresh, last.number, last.ends)
