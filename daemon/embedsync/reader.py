"""The reader: decides what is read next, reads it, tokenises it, and hands batches to the encoder."""

import random
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from embedsync.backfill import Backfill
from embedsync.config import Daemon
from embedsync.db import Connection, translated
from embedsync.encoding.batching import plan_batches
from embedsync.encoding.dispatch import Dispatcher
from embedsync.errors import EncodingError
from embedsync.progress import Progress
from embedsync.queue import QueueReader
from embedsync.records import Fate, Key, Outcome, Page, SourceRow, Tokens, Urgency, Vector
from embedsync.source import BoundSync
from embedsync.target import queue_orphans

_LIVE_ROWS = 256
_PAGES_AHEAD = 2  # one being encoded, one waiting: the encoder never waits for a read
_ORPHANS_A_STEP = 10_000


class Reader:
    """One thread and one connection a sync. Small live changes come first, then bulk, then the backfill."""

    def __init__(
        self, connection: Connection, bound: BoundSync, dispatcher: Dispatcher, settings: Daemon,
        progress: Progress, put: Callable[[Page, list[Outcome]], None], open_page: Callable[[Page], None],
    ) -> None:  # fmt: skip
        self._connection = connection
        self._bound = bound
        self._dispatcher = dispatcher
        self._encoder = dispatcher.encoder
        self._page_rows = settings.page_rows or (1000 if dispatcher.encoder.device == "cpu" else 8192)
        self._slice = max(1, self._page_rows // 4)
        self._progress = progress
        self._put = put
        self._open_page = open_page
        self._queue = QueueReader(connection, bound)
        self._backfill = Backfill(connection, bound)
        self._orphans_after: Key | None = None
        # The next page is read while this one is tokenised, by a thread that shares the reader's connection.
        self._ahead: Future[tuple[int, list[SourceRow]]] | None = None
        self._page_thread = ThreadPoolExecutor(1, thread_name_prefix="pages")
        self._lock = threading.Lock()
        self._in_flight = dict.fromkeys(Urgency, 0)
        self.failure: EncodingError | None = None

    def cycle(self) -> bool:
        """Read one portion of the most urgent work there is; False when there is none or no room for it."""
        with translated("read", f"sync {self._bound.name!r}"):
            if self._has_room(Urgency.LIVE, 10 * _LIVE_ROWS) and self._read_queue(Urgency.LIVE, _LIVE_ROWS):
                return True
            ahead = _PAGES_AHEAD * self._page_rows
            if self._has_room(Urgency.BULK, ahead) and self._read_queue(Urgency.BULK, self._page_rows):
                return True
            if self._backfill.done:
                return self._begin_rescan()
            if self._ahead is not None or not self._backfill.exhausted:
                return self._has_room(Urgency.BACKFILL, ahead) and self._read_page()
            return self._has_room(Urgency.BACKFILL, 1) and self._finish_backfill()

    def close(self) -> None:
        """Drop what waits for the encoder; it is still in the queue, or beyond the checkpoint."""
        self._dispatcher.forget(self)
        self._page_thread.shutdown(wait=False, cancel_futures=True)

    def is_fresh(self) -> bool:
        """Whether every row is written: nothing in flight, nothing queued, the backfill done."""
        with translated("read", f"sync {self._bound.name!r}"):
            return not self.in_flight() and self._backfill.done and self._queue.is_empty()

    def restart_backfill(self) -> None:
        """Walk the whole table again, unless a walk is under way."""
        if self._backfill.done:
            self._backfill.restart([])

    @property
    def is_backfilling(self) -> bool:
        return not self._backfill.done

    def in_flight(self) -> int:
        """Rows read and not yet written."""
        with self._lock:
            return sum(self._in_flight.values())

    def live_in_flight(self) -> int:
        """Rows of small live changes read and not yet written."""
        with self._lock:
            return self._in_flight[Urgency.LIVE]

    def written(self, batches: list[tuple[Page, list[Outcome]]]) -> None:
        """The writer has committed these."""
        with self._lock:
            for page, outcomes in batches:
                self._in_flight[page.urgency] -= len(outcomes)
        self._queue.release(seq for _, outcomes in batches for outcome in outcomes for seq in outcome.seqs)

    def _has_room(self, urgency: Urgency, limit: int) -> bool:
        with self._lock:
            return self._in_flight[urgency] < limit

    def _read_queue(self, urgency: Urgency, limit: int) -> bool:
        token, changes = self._queue.read(limit, bulk=urgency is Urgency.BULK)
        if not changes:
            return False
        seqs: dict[Key, tuple[int, ...]] = {}
        for change in changes:
            seqs[change.key] = (*seqs.get(change.key, ()), change.seq)
        rows = self._queue.read_rows(list(seqs), self._encoder.fingerprint)
        gone = seqs.keys() - {row.key for row in rows}
        page = self._start(Page(urgency, len(seqs)))
        if gone:
            self._put(page, [Outcome(key, token, Fate.REMOVE, seqs=seqs[key]) for key in gone])
        self._handle(page, rows, token, seqs, Fate.TOUCH)
        return True

    def _read_page(self) -> bool:
        read = partial(self._backfill.read_page, self._page_rows, self._encoder.fingerprint)
        token, rows = self._ahead.result() if self._ahead else read()
        self._ahead = None if self._backfill.exhausted else self._page_thread.submit(read)
        if rows:
            page = self._start(Page(Urgency.BACKFILL, len(rows), rows[-1].key))
            self._open_page(page)
            self._handle(page, rows, token, {}, Fate.KEEP)
        return True

    def _finish_backfill(self) -> bool:
        """The last page is written: remove orphans, a step at a time, then call the walk done."""
        self._orphans_after = queue_orphans(self._connection, self._bound, self._orphans_after, _ORPHANS_A_STEP)
        if self._orphans_after is None:
            self._backfill.finish()
        return True

    def _begin_rescan(self) -> bool:
        rescans = self._queue.rescans()
        if rescans:
            self._backfill.restart(rescans)
        return bool(rescans)

    def _start(self, page: Page) -> Page:
        with self._lock:
            self._in_flight[page.urgency] += page.unwritten
        return page

    def _handle(self, page: Page, rows: list[SourceRow], token: int, seqs: dict[Key, tuple[int, ...]], unchanged: Fate) -> None:
        """Pass on what needs no encoding at once, the rest by way of the encoder; each distinct text once."""
        ready = []
        texts: dict[bytes, list[SourceRow]] = {}
        for row in rows:
            if row.unchanged:
                ready.append(Outcome(row.key, token, unchanged, None, row.content_hash, seqs=seqs.get(row.key, ())))
            elif row.text is None or row.content_hash is None:
                ready.append(Outcome(row.key, token, Fate.STORE, seqs=seqs.get(row.key, ())))
            elif (known := self._dispatcher.recent.get(row.content_hash)) is not None:
                ready.append(Outcome(row.key, token, Fate.STORE, known, row.content_hash, seqs=seqs.get(row.key, ())))
            else:
                texts.setdefault(row.content_hash, []).append(row)
        if ready:
            self._put(page, ready)
        if not texts:
            return
        groups = list(texts.values())
        tokens: list[Tokens] = []
        for start in range(0, len(groups), self._slice):
            tokens += self._tokenize([group[0] for group in groups[start : start + self._slice]])
            if page.urgency is not Urgency.LIVE:  # a live change waits for a slice, not for the whole page
                self._read_queue(Urgency.LIVE, _LIVE_ROWS)
        self._progress.truncated(sum(len(group) for group, text in zip(groups, tokens, strict=True) if text.truncated))
        batches = plan_batches([len(text) for text in tokens], self._dispatcher.budget.next_size)
        random.shuffle(batches)  # longest first, the ETA would mislead and the search for the best size see one length at a time
        for batch in batches:
            done = partial(self._encoded, page, [groups[i] for i in batch.indices], token, seqs)
            self._dispatcher.submit(page.urgency, [tokens[i] for i in batch.indices], batch.size, done, owner=self)

    def _tokenize(self, rows: list[SourceRow]) -> list[Tokens]:
        """Tokens of each row's text. A text whose cut beginning does not fill the model is read whole."""
        tokens = self._encoder.tokenize([row.text or "" for row in rows])
        for place, row in enumerate(rows):
            if len(row.text or "") == self._bound.max_characters and not tokens[place].truncated:
                (found,) = self._queue.read_rows([row.key], self._encoder.fingerprint, whole=True) or (None,)
                # A row that has changed meanwhile is in the queue, and is read again from there.
                if found is not None and found.text is not None and found.content_hash == row.content_hash:
                    tokens[place] = self._encoder.tokenize([found.text])[0]
        return tokens

    def _encoded(
        self, page: Page, groups: list[list[SourceRow]], token: int, seqs: dict[Key, tuple[int, ...]],
        results: list[Vector | Exception],
    ) -> None:  # fmt: skip
        outcomes = []
        for group, result in zip(groups, results, strict=True):
            if isinstance(result, EncodingError) and result.retryable:
                self.failure = result
                return
            error = str(result)[:500] if isinstance(result, Exception) else None
            vector = None if isinstance(result, Exception) else result
            if vector is not None and group[0].content_hash is not None:
                self._dispatcher.recent.put(group[0].content_hash, vector)
            outcomes += [
                Outcome(row.key, token, Fate.STORE, vector, row.content_hash, error, seqs.get(row.key, ())) for row in group
            ]
        self._put(page, outcomes)
