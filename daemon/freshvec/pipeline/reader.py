"""The reader: decides what is read next, reads it, and hands its texts on."""

import math
import time
from concurrent.futures import Executor

from freshvec.capture.queue import ORPHANS, QUEUE_FULL, QueueReader
from freshvec.config import Daemon
from freshvec.db import Session, translated
from freshvec.encoding.dispatch import Dispatcher
from freshvec.pipeline.ahead import PageAhead
from freshvec.pipeline.epoch import Epoch
from freshvec.pipeline.ledger import Ledger, Portion
from freshvec.pipeline.passages import PassageTexts
from freshvec.pipeline.pressure import SECONDS_BETWEEN_LOOKS, Pressure
from freshvec.pipeline.progress import Progress
from freshvec.pipeline.proof import Proof
from freshvec.pipeline.rests import MANY
from freshvec.pipeline.texts import Texts, removed
from freshvec.records import Entry, Key, SourceRow, Urgency
from freshvec.scans.backfill import Backfill
from freshvec.scans.faults import faults
from freshvec.scans.orphans import OrphanScan
from freshvec.scans.vectors import VectorSample
from freshvec.source.bound import BoundSync
from freshvec.source.rows import RowReader

_LIVE_ROWS = 256
_BREATH = 0.02  # seconds
_READINGS = 2  # of one row that may be under way: an emptied row need not wait for what it was
_PAGES_AHEAD = 2  # one being encoded, one waiting: the encoder never waits for a read
_ORPHANS_A_STEP = 10_000
_REST = 9.0  # times as long as a page took to read, a walk that only proves waits before the next
_LONGEST_REST = 5.0  # seconds
_REST_OF_REPEATS = 1.0  # seconds at least before a walk for a request that the last one left


class Reader:
    """Reads for one sync, a portion at a step: small live changes first, then bulk, then the backfill."""

    def __init__(
        self,
        connection: Session,
        bound: BoundSync,
        dispatcher: Dispatcher,
        settings: Daemon,
        progress: Progress,
        ledger: Ledger,
        epoch: Epoch,
        threads: Executor,
        pressure: Pressure,
    ) -> None:
        self._connection = connection
        self._bound = bound
        self._dispatcher = dispatcher
        self._page_rows = settings.page_rows or (1000 if dispatcher.encoder.device == "cpu" else 8192)
        self._settings = settings
        self._ledger = ledger
        self._epoch = epoch
        self._pressure = pressure
        self._stages = progress.stages
        self._queue = QueueReader(connection, bound)
        self._rows = RowReader(connection, bound)
        slice_size = max(1, self._page_rows // 4)
        shared = (bound, dispatcher, progress, ledger, self._rows, slice_size)
        is_cut = bound.sync.chunk is not None
        self._texts = PassageTexts(connection, *shared) if is_cut else Texts(*shared)
        self._backfill = Backfill(connection, bound)
        self._orphans: OrphanScan | None = None
        self._orphans_asked: list[str] = []  # the requests that the scan under way answers
        self._answered: list[str] = []  # the requests that the last walk was for
        self._walk_began = time.monotonic()
        self._repeat_due = 0.0
        self._lost = 0  # orphans that this walk has found
        self._proof: Proof | None = None
        self._proof_due = self._proof_every = math.inf
        self._page_due = 0.0  # of a walk that only proves: it leaves the database most of the time
        self._ahead = PageAhead(self._backfill, ledger, threads)
        self._is_all_read = False  # of the live changes, at the last look
        self.found = 0  # changes, or rows of a page, at the last look

    def cycle(self) -> bool:
        """Read one portion of the most urgent work there is; False when there is none or no room for it."""
        with translated("read", f"sync {self._bound.name!r}"):
            self._is_all_read = False
            self._ledger.has_missed |= self._ledger.rests.end_due()
            if self._has_room(Urgency.LIVE, 10 * _LIVE_ROWS) and self._read_queue(Urgency.LIVE, _LIVE_ROWS):
                self._is_all_read = not self._queue.has_more
                return True
            if self._pressure.is_felt or len(self._ledger.rests) >= MANY:
                return False
            ahead = _PAGES_AHEAD * self._page_rows
            if self._has_room(Urgency.BULK, ahead) and self._read_queue(Urgency.BULK, self._page_rows):
                return True
            if self._backfill.done:
                return self._begin_walk()
            if not self._has_room_to_walk():
                return False
            return self._read_page() if self._has_pages else self._finish_backfill()

    def breath(self) -> float:
        """Seconds until the next look, once something was read.

        Where single changes come, all of them are with the encoder, and it needs the processor: the bell, or
        what is written, wakes the reader before that.
        """
        alone = self._is_all_read and self._backfill.done and not self._ledger.in_flight(Urgency.BULK)
        return _BREATH if alone else 0.0

    def close(self) -> None:
        """Drop what waits for the encoder; it is still in the queue, or beyond the checkpoint."""
        self._dispatcher.forget(self._ledger)
        self._ahead.close()

    def is_fresh(self) -> bool:
        """Whether every row is written: nothing in flight, nothing queued, the backfill done."""
        with translated("read", f"sync {self._bound.name!r}"):
            is_answered = not self._ledger.in_flight() and not len(self._ledger.rests)
            return is_answered and self._backfill.done and self._queue.is_empty()

    def is_at_rest(self) -> bool:
        """Whether every row is written, and no walk is due: one small query, where a look for each kind of
        work takes four.
        """
        is_due = self._ledger.has_missed or time.monotonic() >= self._proof_due
        return not is_due and self.is_fresh()

    @property
    def is_walking(self) -> bool:
        """Whether a walk is under way, whatever it is for."""
        return not self._backfill.done

    @property
    def phase(self) -> str:
        """What is being done, in the words of `freshvec.progress`."""
        if self._proof is not None:
            return "comparing vectors"
        if self._orphans is not None:
            return "finding orphans"
        return "live" if self._backfill.done else "proving" if self._backfill.proves else "walking"

    def restart_backfill(self) -> None:
        """Walk the whole table again, unless a walk is under way."""
        if self._backfill.done:
            with self._epoch.transaction(self._connection):
                self._backfill.restart()

    def prove_soon(self, seconds: float) -> None:
        """Begin a walk that proves everything fresh, once the last proof is `seconds` old."""
        self._proof_due = time.monotonic() + seconds - (self._backfill.proven_seconds_ago or 0.0)
        self._proof_every = seconds

    def patience(self) -> float:
        """Seconds until the reader has something to do without any news."""
        rest = self._ledger.rests.patience()
        if self._pressure.is_felt or len(self._ledger.rests) >= MANY:
            return min(rest, SECONDS_BETWEEN_LOOKS)
        now = time.monotonic()
        if not self._backfill.done:  # without room, what is written makes some and wakes the reader
            return min(rest, max(0.0, self._page_due - now) if self._has_room_to_walk() else math.inf)
        repeat_due = self._repeat_due if self._repeat_due > now else math.inf
        return min(rest, max(0.0, min(self._proof_due, repeat_due) - now))

    def _has_room(self, urgency: Urgency, limit: int) -> bool:
        return self._ledger.in_flight(urgency) < limit

    @property
    def _has_pages(self) -> bool:
        """Whether the walk has a page that was not taken yet."""
        return self._ahead.is_under_way or not self._backfill.exhausted

    def _has_room_to_walk(self) -> bool:
        """Whether the walk can go on; it comes to its end once nothing of it is under way."""
        return self._has_room(Urgency.BACKFILL, _PAGES_AHEAD * self._page_rows if self._has_pages else 1)

    def _read_queue(self, urgency: Urgency, limit: int) -> bool:
        if self._ledger.has_missed:
            self._ledger.has_missed = False
            self._queue.start_over()
        handed_out = self._ledger.entries(urgency)
        fence, changes = self._queue.read(limit, handed_out, bulk=urgency is Urgency.BULK)
        # A row that changes all the time is read again once an older reading is written: then one reading
        # answers all that came meanwhile.
        readings = self._ledger.readings(urgency)
        changes = [change for change in changes if readings[change.key] < _READINGS]
        if not changes:
            return False
        with self._stages.timed("read"):
            rows = self._rows.read([change.key for change in changes])
        # The others stay in the queue: their texts are too long to be held as well.
        changes = changes[: len(rows)]
        entries: dict[Key, tuple[Entry, ...]] = {}
        for change, row in zip(changes, rows, strict=True):
            key = row.key if row else change.key  # the source's spelling, if there is a row
            entries[key] = (*entries.get(key, ()), *change.entries)
        self.found = sum(map(len, entries.values()))
        portion = Portion(urgency, fence, len(entries), entries)
        self._ledger.open(portion)
        there = {row.key: row for row in rows if row is not None}
        self._ledger.put(portion, removed(portion, entries.keys() - there.keys()))
        self._handle(portion, list(there.values()))
        return True

    def _read_page(self) -> bool:
        if time.monotonic() < self._page_due:
            return False
        began = time.monotonic()
        with self._stages.timed("read"):
            fence, rows = self._ahead.take(self._page_rows)
        self.found = len(rows)
        last_key = rows[-1].key if rows else None
        wrong = [row.key for row in rows if not row.unchanged] if self._backfill.was_proven else []
        not_fresh = len(faults(self._connection, self._bound, wrong))
        portion = Portion(Urgency.BACKFILL, fence, len(rows), last_key=last_key, not_fresh=not_fresh)
        if rows:
            self._ledger.open(portion)
        self._ahead.begin(self._page_rows)
        if self._backfill.proves:
            self._page_due = time.monotonic() + min(_LONGEST_REST, _REST * (time.monotonic() - began))
        if rows:
            self._handle(portion, rows)
        return True

    def _finish_backfill(self) -> bool:
        """The last page is written: remove orphans, compare vectors, a step at a time, then end the walk."""
        if self._proof is None and not self._scan_orphans():
            return True
        if self._proof is None:
            rows = self._settings.prove_vectors if self._backfill.proves else 0
            sample = VectorSample(self._connection, self._bound, rows)
            self._proof = Proof(sample, self._dispatcher, self._settings.precision, self._ledger)
        if not self._proof.step():
            with self._epoch.transaction(self._connection):
                self._backfill.finish(self._lost + self._proof.wrong, self._proof.same)
            self._proof = None
            now = time.monotonic()
            self._proof_due = now + self._proof_every
            self._repeat_due = now + max(_REST_OF_REPEATS, now - self._walk_began)
        return True

    def _scan_orphans(self) -> bool:
        """One step; True at the end."""
        self._orphans = self._orphans or OrphanScan(self._connection, self._bound)
        with self._epoch.transaction(self._connection):
            self._lost += len(self._orphans.queue(_ORPHANS_A_STEP))
            if self._orphans.is_done:
                self._orphans.correct()
        if not self._orphans.is_done:
            return False
        self._orphans = None
        return True

    def _begin_walk(self) -> bool:
        """Begin the walk that somebody asked for, or that is due; False when there is nothing to walk."""
        rescans = self._due_requests()
        if rescans and all(reason == ORPHANS for _, reason in rescans):
            if self._orphans is None:
                self._orphans_asked = [number for number, _ in rescans]
            if self._scan_orphans():
                with self._epoch.transaction(self._connection):
                    self._backfill.answer(self._orphans_asked)
            return True
        self._orphans, self._lost = None, 0  # a walk ends with a scan of its own, from the beginning
        self._walk_began = time.monotonic()
        if rescans:
            self._answered = [number for number, _ in rescans]
            full = any(reason == QUEUE_FULL for _, reason in rescans)
            with self._epoch.transaction(self._connection):
                self._backfill.restart(self._answered, discards_queue=full)
            return True
        if time.monotonic() >= self._proof_due:
            self._proof_due = math.inf
            with self._epoch.transaction(self._connection):
                self._backfill.restart(proves=True)
            return True
        return False

    def _due_requests(self) -> list[tuple[str, str]]:
        """The requests to be answered now.

        One that the last walk left, because an open transaction relies on it, rests as long as that walk
        took: the transaction may go on for hours.
        """
        rescans = self._queue.rescans()
        is_left = {number for number, _ in rescans} <= set(self._answered)
        return [] if is_left and time.monotonic() < self._repeat_due else rescans

    def _handle(self, portion: Portion, rows: list[SourceRow]) -> None:
        """A live change waits for a slice of this portion's texts, not for all of them."""
        self._texts.handle(portion, rows, lambda: self._read_live_beside(portion))

    def _read_live_beside(self, portion: Portion) -> None:
        if portion.urgency is not Urgency.LIVE:
            self._read_queue(Urgency.LIVE, _LIVE_ROWS)
