"""The reader: decides what is read next, reads it, tokenises it, and hands batches to the encoder."""

import math
import random
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from freshvec.capture.queue import ORPHANS, QUEUE_FULL, QueueReader
from freshvec.config import Daemon
from freshvec.db import Connection, translated
from freshvec.encoding.batching import plan_batches
from freshvec.encoding.dispatch import Dispatcher
from freshvec.errors import EncodingError
from freshvec.pipeline.epoch import Epoch
from freshvec.pipeline.ledger import Ledger, Portion
from freshvec.pipeline.progress import Progress
from freshvec.pipeline.proof import Proof
from freshvec.records import Fate, Key, Outcome, SourceRow, Tokens, Urgency, Vector
from freshvec.scans.backfill import Backfill
from freshvec.scans.faults import faults
from freshvec.scans.orphans import OrphanScan
from freshvec.scans.vectors import VectorSample
from freshvec.source.bound import BoundSync
from freshvec.source.rows import RowReader, without_last_word

_LIVE_ROWS = 256
_PAGES_AHEAD = 2  # one being encoded, one waiting: the encoder never waits for a read
_ORPHANS_A_STEP = 10_000
_REST = 9.0  # times as long as a page took to read, a walk that only proves waits before the next
_LONGEST_REST = 5.0  # seconds


class Reader:
    """One thread and one connection per sync. Small live changes come first, then bulk, then the backfill."""

    def __init__(
        self,
        connection: Connection,
        bound: BoundSync,
        dispatcher: Dispatcher,
        settings: Daemon,
        progress: Progress,
        ledger: Ledger,
        epoch: Epoch,
    ) -> None:
        self._connection = connection
        self._bound = bound
        self._dispatcher = dispatcher
        self._encoder = dispatcher.encoder
        self._page_rows = settings.page_rows or (1000 if dispatcher.encoder.device == "cpu" else 8192)
        self._slice = max(1, self._page_rows // 4)
        self._settings = settings
        self._progress = progress
        self._ledger = ledger
        self._epoch = epoch
        self._queue = QueueReader(connection, bound)
        self._rows = RowReader(connection, bound)
        self._backfill = Backfill(connection, bound)
        self._orphans: OrphanScan | None = None
        self._lost = 0  # orphans that this walk has found
        self._proof: Proof | None = None
        self._proof_due = self._proof_every = math.inf
        self._page_due = 0.0  # of a walk that only proves: it leaves the database most of the time
        # The next page is read while this one is tokenised, by a thread that shares the reader's connection.
        self._ahead: Future[tuple[int, list[SourceRow]]] | None = None
        self._page_thread = ThreadPoolExecutor(1, thread_name_prefix="pages")

    def cycle(self) -> bool:
        """Read one portion of the most urgent work there is; False when there is none or no room for it."""
        with translated("read", f"sync {self._bound.name!r}"):
            if self._has_room(Urgency.LIVE, 10 * _LIVE_ROWS) and self._read_queue(Urgency.LIVE, _LIVE_ROWS):
                return True
            ahead = _PAGES_AHEAD * self._page_rows
            if self._has_room(Urgency.BULK, ahead) and self._read_queue(Urgency.BULK, self._page_rows):
                return True
            if self._backfill.done:
                return self._begin_walk()
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
            return not self._ledger.in_flight() and self._backfill.done and self._queue.is_empty()

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
        due = self._proof_due if self._backfill.done else self._page_due
        return max(0.0, due - time.monotonic())

    def _has_room(self, urgency: Urgency, limit: int) -> bool:
        return self._ledger.in_flight(urgency) < limit

    def _read_queue(self, urgency: Urgency, limit: int) -> bool:
        handed_out = self._ledger.entries(urgency)
        fence, changes = self._queue.read(limit, handed_out, bulk=urgency is Urgency.BULK)
        if not changes:
            return False
        rows = self._rows.read([change.key for change in changes])
        entries: dict[Key, tuple[int, ...]] = {}
        for change, row in zip(changes, rows, strict=True):
            key = row.key if row else change.key  # the source's spelling, if there is a row
            entries[key] = (*entries.get(key, ()), *change.entries)
        portion = Portion(urgency, fence, len(entries), entries)
        self._ledger.open(portion)
        there = {row.key: row for row in rows if row is not None}
        self._ledger.put(portion, _removed(portion, entries.keys() - there.keys()))
        self._handle(portion, list(there.values()))
        return True

    def _read_page(self) -> bool:
        if time.monotonic() < self._page_due:
            return False
        began = time.monotonic()
        read = partial(self._backfill.read_page, self._page_rows)
        fence, rows = self._ahead.result() if self._ahead else read()
        self._ahead = None
        wrong = [row.key for row in rows if not row.unchanged] if self._backfill.was_proven else []
        found = faults(self._connection, self._bound, wrong)
        if self._backfill.proves:
            self._page_due = time.monotonic() + min(_LONGEST_REST, _REST * (time.monotonic() - began))
        elif not self._backfill.exhausted:
            self._ahead = self._page_thread.submit(read)
        if rows:
            portion = Portion(Urgency.BACKFILL, fence, len(rows), last_key=rows[-1].key, not_fresh=len(found))
            self._ledger.open(portion)
            self._handle(portion, rows)
        return True

    def _finish_backfill(self) -> bool:
        """The last page is written: remove orphans, compare vectors, a step at a time, then call the walk done."""
        if self._proof is None and not self._scan_orphans():
            return True
        if self._proof is None:
            rows = self._settings.prove_vectors if self._backfill.proves else 0
            sample = VectorSample(self._connection, self._bound, rows)
            self._proof = Proof(sample, self._dispatcher, self._settings.precision, self._ledger, owner=self)
        if not self._proof.step():
            with self._epoch.transaction(self._connection):
                self._backfill.finish(self._lost + self._proof.wrong, self._proof.same)
            self._proof, self._lost = None, 0
            self._proof_due = time.monotonic() + self._proof_every
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
        rescans = self._queue.rescans()
        if rescans and all(reason == ORPHANS for _, reason in rescans):
            if self._scan_orphans():
                with self._epoch.transaction(self._connection):
                    self._backfill.answer([number for number, _ in rescans])
            return True
        if rescans:
            full = any(reason == QUEUE_FULL for _, reason in rescans)
            with self._epoch.transaction(self._connection):
                self._backfill.restart([number for number, _ in rescans], discards_queue=full)
            return True
        if time.monotonic() >= self._proof_due:
            self._proof_due = math.inf
            self._lost = 0
            with self._epoch.transaction(self._connection):
                self._backfill.restart(proves=True)
            return True
        self._queue.settle()
        return False

    def _handle(self, portion: Portion, rows: list[SourceRow]) -> None:
        """Pass on what needs no encoding at once, the rest by way of the encoder; each distinct text once."""
        groups = self._pass_on_known(portion, rows)
        tokens: list[Tokens] = []
        for start in range(0, len(groups), self._slice):
            tokens += self._tokenize(portion, groups[start : start + self._slice])
            if portion.urgency is not Urgency.LIVE:  # a live change waits for a slice, not for the whole page
                self._read_queue(Urgency.LIVE, _LIVE_ROWS)
        self._submit(portion, [group for group in groups if group], tokens)

    def _pass_on_known(self, portion: Portion, rows: list[SourceRow]) -> list[list[SourceRow]]:
        """Put what needs no encoding; the other rows come back, those of one text together."""
        ready = []
        texts: dict[bytes, list[SourceRow]] = {}
        for row in rows:
            if (outcome := self._known(portion, row)) is not None:
                ready.append(outcome)
            elif row.content_hash is not None:
                texts.setdefault(row.content_hash, []).append(row)
        self._ledger.put(portion, ready)
        return list(texts.values())

    def _known(self, portion: Portion, row: SourceRow) -> Outcome | None:
        """What becomes of a row that needs no encoding; None for one that does."""
        key, fence = row.key, portion.fence
        if row.error is not None:
            return Outcome(key, fence, Fate.STORE, error=row.error)
        if row.content_hash is None:
            # No text. While an older reading of the row may still be written, a tombstone keeps it out.
            if self._ledger.has_older(portion):
                return Outcome(key, fence, Fate.STORE)
            return Outcome(key, fence, Fate.KEEP if row.unchanged else Fate.CLEAR)
        if row.unchanged:
            fate = Fate.KEEP if portion.urgency is Urgency.BACKFILL else Fate.TOUCH
            return Outcome(key, fence, fate, content_hash=row.content_hash)
        known = self._dispatcher.recent.get(row.content_hash)
        return None if known is None else Outcome(key, fence, Fate.STORE, known, row.content_hash)

    def _tokenize(self, portion: Portion, groups: list[list[SourceRow]]) -> list[Tokens]:
        """Tokens of each group's text. A group whose rows have all changed meanwhile is emptied and left out."""
        limit = self._bound.max_characters
        texts = [without_last_word(group[0].text or "", limit) for group in groups]
        tokens = []
        for group, text, found in zip(groups, texts, self._encoder.tokenize(texts), strict=True):
            if len(group[0].text or "") < limit or found.truncated:
                tokens.append(found)
            elif whole := self._whole(portion, group):
                tokens += self._encoder.tokenize([whole])
        return tokens

    def _whole(self, portion: Portion, group: list[SourceRow]) -> str | None:
        """The whole text of a group whose beginning does not fill the model; None where no row has it any more.

        It is read again, and a row may have been written meanwhile. Such a row leaves the group, and goes on as it
        is now: that reading is later than the portion's fence, so its fence is that of this text too. Nothing is
        encoded but the very text whose hash is stored with it.
        """
        while group:
            row = group[0]
            (again,) = self._rows.read([row.key], whole=True)
            if again is not None and again.text is not None and again.content_hash == row.content_hash:
                return again.text
            group.pop(0)
            if again is None:
                self._ledger.put(portion, _removed(portion, [row.key]))
                continue
            # Under the key that the portion knows it by: its queue entries are noted there.
            for changed in self._pass_on_known(portion, [replace(again, key=row.key)]):
                self._submit(portion, [changed], self._encoder.tokenize([changed[0].text or ""]))
        return None

    def _submit(self, portion: Portion, groups: list[list[SourceRow]], tokens: list[Tokens]) -> None:
        """Hand texts to the encoder in batches, each with the rows that have it."""
        cut = sum(len(group) for group, text in zip(groups, tokens, strict=True) if text.truncated)
        self._progress.truncated(cut)
        batches = plan_batches([len(text) for text in tokens], self._dispatcher.budget.next_size)
        # Longest first, the ETA would mislead and the search for the best size see one length at a time.
        random.shuffle(batches)
        for batch in batches:
            done = partial(self._encoded, portion, [groups[i] for i in batch.indices])
            chosen = [tokens[i] for i in batch.indices]
            self._dispatcher.submit(portion.urgency, chosen, batch.size, done, owner=self)

    def _encoded(
        self, portion: Portion, groups: list[list[SourceRow]], results: list[Vector | Exception]
    ) -> None:
        """Called on the encoder's thread: a batch is done."""
        outcomes = []
        for group, result in zip(groups, results, strict=True):
            if isinstance(result, EncodingError) and result.retryable:
                self._ledger.failure = result
                return
            error = str(result)[:500] if isinstance(result, Exception) else None
            vector = None if isinstance(result, Exception) else result
            if vector is not None and group[0].content_hash is not None:
                self._dispatcher.recent.put(group[0].content_hash, vector)
            outcomes += [
                Outcome(row.key, portion.fence, Fate.STORE, vector, row.content_hash, error) for row in group
            ]
        self._ledger.put(portion, outcomes)


def _removed(portion: Portion, keys: Iterable[Key]) -> list[Outcome]:
    return [Outcome(key, portion.fence, Fate.REMOVE) for key in keys]
