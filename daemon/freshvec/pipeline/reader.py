"""The reader: decides what is read next, reads it, and hands its texts on."""

from concurrent.futures import Executor

from freshvec.capture.queue import QueueReader
from freshvec.config import Daemon
from freshvec.db import Session, translated
from freshvec.encoding.batching import page_rows
from freshvec.encoding.dispatch import Dispatcher
from freshvec.pipeline.epoch import Epoch
from freshvec.pipeline.ledger import Ledger, Portion
from freshvec.pipeline.passages import PassageTexts
from freshvec.pipeline.pressure import SECONDS_BETWEEN_LOOKS, Pressure
from freshvec.pipeline.progress import Progress
from freshvec.pipeline.rests import MANY
from freshvec.pipeline.share import ALL
from freshvec.pipeline.texts import Texts, removed
from freshvec.pipeline.walker import Walker
from freshvec.records import Entry, Key, SourceRow, Urgency
from freshvec.scans.replica import Replica
from freshvec.source.bound import BoundSync
from freshvec.source.rows import RowReader

_LIVE_ROWS = 256
_BREATH = 0.02  # seconds
_READINGS = 2  # of one row that may be under way: an emptied row need not wait for what it was
_PAGES_AHEAD = 2  # of bulk changes: one being encoded, one waiting


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
        replica: Replica | None = None,
    ) -> None:
        self._connection = connection
        self._bound = bound
        self._dispatcher = dispatcher
        self._page_rows = settings.page_rows or page_rows(dispatcher.encoder.device)
        self._ledger = ledger
        self._pressure = pressure
        self._stages = progress.stages
        self._queue = QueueReader(
            connection, bound, None if epoch.share.shards == ALL else epoch.share.shards
        )
        self._rows = RowReader(connection, bound)
        slice_size = max(1, self._page_rows // 4)
        shared = (bound, dispatcher, progress, ledger, self._rows, slice_size)
        is_cut = bound.sync.chunk is not None
        self._texts = PassageTexts(connection, *shared) if is_cut else Texts(*shared)
        self.walker = Walker(
            connection,
            bound,
            dispatcher,
            settings,
            ledger,
            epoch,
            threads,
            progress.stages,
            self._page_rows,
            self._handle,
            replica,
        )
        self._is_all_read = False  # of the live changes, at the last look
        self.found = 0  # changes, or rows of a page, at the last look

    def cycle(self) -> bool:
        """Read one portion of the most urgent work there is; False when there is none or no room for it."""
        with translated("read", f"sync {self._bound.name!r}"):
            self._is_all_read = False
            if self._ledger.rests.end_due():  # a plain store: the writer may set it meanwhile
                self._ledger.has_missed = True
            if self._has_live_room() and self._read_queue(Urgency.LIVE, _LIVE_ROWS):
                self._is_all_read = not self._queue.has_more
                return True
            if self._pressure.is_felt or len(self._ledger.rests) >= MANY:
                return False
            ahead = _PAGES_AHEAD * self._page_rows
            if self._has_room(Urgency.BULK, ahead) and self._read_queue(Urgency.BULK, self._page_rows):
                return True
            if self.walker.is_over:
                return self.walker.begin(self._queue.rescans())
            if not self.walker.may_go_on(self._queue.rescans):
                return False
            walked = self.walker.step()
            self.found = walked or 0
            return walked is not None

    def breath(self) -> float:
        """Seconds until the next look, once something was read.

        Where single changes come, all of them are with the encoder, and it needs the processor: the bell, or
        what is written, wakes the reader before that.
        """
        alone = self._is_all_read and self.walker.is_over and not self._ledger.in_flight(Urgency.BULK)
        return _BREATH if alone else 0.0

    def close(self) -> None:
        """Drop what waits for the encoder; it is still in the queue, or beyond the checkpoint."""
        self._dispatcher.forget(self._ledger, for_good=True)
        self.walker.close()

    def is_fresh(self) -> bool:
        """Whether every row is written: nothing in flight, nothing queued, the backfill done."""
        with translated("read", f"sync {self._bound.name!r}"):
            is_answered = not self._ledger.in_flight() and not len(self._ledger.rests)
            is_read = not self._ledger.has_missed  # which the last one written may just have found
            return is_answered and is_read and self.walker.is_over and self._queue.is_empty()

    def is_at_rest(self) -> bool:
        """Whether every row is written, and no walk is due: one small query, where a look for each kind of
        work takes four.
        """
        return not self.walker.is_proof_due and self.is_fresh()

    def patience(self) -> float:
        """Seconds until the reader has something to do without any news."""
        rest = self._ledger.rests.patience()
        if self._pressure.is_felt or len(self._ledger.rests) >= MANY:
            return min(rest, SECONDS_BETWEEN_LOOKS)
        return min(rest, self.walker.patience())

    def _has_live_room(self) -> bool:
        return self._has_room(Urgency.LIVE, 10 * _LIVE_ROWS)

    def _has_room(self, urgency: Urgency, limit: int) -> bool:
        return self._ledger.in_flight(urgency) < limit

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

    def _handle(self, portion: Portion, rows: list[SourceRow]) -> None:
        """A live change waits for a slice of this portion's texts, not for all of them."""
        self._texts.handle(portion, rows, lambda: self._read_live_beside(portion))

    def _read_live_beside(self, portion: Portion) -> None:
        if portion.urgency is not Urgency.LIVE and self._has_live_room():
            self._read_queue(Urgency.LIVE, _LIVE_ROWS)
