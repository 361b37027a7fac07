"""A walk through the whole table: pages, then orphans, then vectors encoded again, and the end of it."""

import math
import time
from collections.abc import Callable
from concurrent.futures import Executor

from loguru import logger

from freshvec.capture import queue
from freshvec.capture.queue import ORPHANS
from freshvec.config import Daemon
from freshvec.db import Session
from freshvec.encoding.dispatch import Dispatcher
from freshvec.errors import DatabaseError, LockedError
from freshvec.pipeline.ahead import PageAhead
from freshvec.pipeline.epoch import Epoch
from freshvec.pipeline.ledger import Ledger, Portion
from freshvec.pipeline.proof import Proof
from freshvec.pipeline.stages import Stages
from freshvec.pipeline.walk_requests import LOOK_AT_FIRST, Request, Requests, is_full
from freshvec.records import SourceRow, Urgency
from freshvec.scans.backfill import Backfill
from freshvec.scans.faults import faults
from freshvec.scans.orphans import OrphanScan
from freshvec.scans.replica import Replica
from freshvec.scans.vectors import VectorSample
from freshvec.source.bound import BoundSync

_PAGES_AHEAD = 2  # one being encoded, one waiting: the encoder never waits for a read
_ORPHANS_A_STEP = 10_000
_REST = 9.0  # times as long as a page took to read, a walk that only proves waits before the next
_LONGEST_REST = 5.0  # seconds
_OTHERS_SECONDS = 0.2  # between looks whether the other members have walked their ranges


class Walker:
    """The walks of one sync, a step at a time, on the reader's thread. `handle` takes the rows of a page.

    Members of those who share a sync walk its ranges; the one that leads begins the walk and ends it.
    """

    def __init__(
        self,
        connection: Session,
        bound: BoundSync,
        dispatcher: Dispatcher,
        settings: Daemon,
        ledger: Ledger,
        epoch: Epoch,
        threads: Executor,
        stages: Stages,
        page_rows: int,
        handle: Callable[[Portion, list[SourceRow]], None],
        replica: Replica | None,
    ) -> None:
        self._connection = connection
        self._bound = bound
        self._dispatcher = dispatcher
        self._settings = settings
        self._ledger = ledger
        self._epoch = epoch
        self._share = epoch.share
        self._stages = stages
        self._page_rows = page_rows
        self._handle = handle
        self._backfill = Backfill(connection, bound, epoch, replica)
        self._ahead = PageAhead(self._backfill, ledger, threads)
        self.has_walked = not self._backfill.done  # whether a walk was seen under way
        self._orphans: OrphanScan | None = None
        self._orphans_asked: list[str] = []  # the requests that the scan under way answers
        self._requests = Requests(connection, bound)
        self._began = time.monotonic()
        self._lost = 0  # orphans that this walk has found
        self._proof: Proof | None = None
        self._proof_due = self._proof_every = math.inf
        self._page_due = 0.0  # of a walk that only proves: it leaves the database most of the time

    @property
    def is_over(self) -> bool:
        """Whether no walk is under way."""
        return self._backfill.done

    @property
    def is_proof_due(self) -> bool:
        return time.monotonic() >= self._proof_due

    @property
    def phase(self) -> str:
        """What is being done, in the words of `freshvec.progress`."""
        if self._proof is not None:
            return "comparing vectors"
        if self._orphans is not None:
            return "finding orphans"
        return "live" if self._backfill.done else "proving" if self._backfill.proves else "walking"

    def close(self) -> None:
        self._ahead.close()

    def prove_soon(self, seconds: float) -> None:
        """Begin a walk that proves everything fresh, once the last proof is `seconds` old."""
        ago = self._backfill.proven_seconds_ago or 0.0
        # What was noted by a clock that was ahead may be of any age.
        self._proof_due = time.monotonic() + (seconds - ago if ago >= 0 else 0.0)
        self._proof_every = seconds

    def patience(self) -> float:
        """Seconds until there is something to walk without any news."""
        now = time.monotonic()
        if not self._backfill.done:  # without room, what is written makes some and wakes the reader
            return max(0.0, self._page_due - now) if self._has_room() else math.inf
        return max(0.0, min(self._proof_due - now, self._requests.patience()))

    def may_go_on(self, rescans: Callable[[], list[Request]]) -> bool:
        """Whether the walk under way may read a page. One that has read none yet answers what it can."""
        if not self._backfill.is_at_beginning:
            return True
        if time.monotonic() < self._page_due:
            return False
        numbers = self._requests.answered_at_once(rescans())
        if numbers is None:
            self._page_due = time.monotonic() + LOOK_AT_FIRST
        elif numbers:
            with self._epoch.transaction(self._connection):
                self._backfill.answer(numbers)
        return numbers is not None

    def step(self) -> int | None:
        """A page, or a step of the walk's end: gives its rows. None where there is no room for it."""
        if not self._has_room():
            return None
        return self._read_page() if self._has_pages else self._finish()

    def begin(self, rescans: list[Request]) -> bool:
        """Begin the walk that somebody asked for, by these requests, or that is due; False when there is
        nothing to walk."""
        if not self._share.leads:
            return self._join()
        rescans = self._requests.due(rescans)
        if rescans and all(reason == ORPHANS for _, reason in rescans):
            if self._orphans is None:
                self._orphans_asked = [number for number, _ in rescans]
            if self._scan_orphans():
                with self._epoch.transaction(self._connection):
                    self._backfill.answer(self._orphans_asked)
            return True
        self._orphans, self._lost = None, 0  # a walk ends with a scan of its own, from the beginning
        self._began = time.monotonic()
        if rescans:
            self._requests.walk_begins(rescans)
            self.restart([number for number, _ in rescans], discards_queue=is_full(rescans))
            return True
        if self.is_proof_due:
            self._proof_due = math.inf
            self.restart(proves=True)
            return True
        return False

    def restart(
        self, rescans: list[str] | None = None, *, proves: bool = False, discards_queue: bool = False
    ) -> None:
        """Walk the whole table. Members must not write what they read before, unless it is written by then
        (pipeline/amid_walk.py), so their walk begins alone."""
        if not (discards_queue and self._restart_with_small_queue(rescans or [])):
            discard = queue.discard if discards_queue else None
            with self._epoch.transaction(self._connection, alone=not self._share.is_whole):
                self._backfill.restart(rescans or [], proves=proves, discard=discard)
        self._ahead.expect()
        self.has_walked = True

    def _restart_with_small_queue(self, rescans: list[str]) -> bool:
        """Alone, since whoever writes has the queue. False where somebody else has it."""
        try:
            with self._epoch.transaction(self._connection, alone=True):
                self._backfill.restart(rescans, discard=queue.discard_file)
        except (LockedError, DatabaseError) as error:
            logger.info("sync {}: its queue stays as large for now. {}", self._bound.name, error)
            return False
        return True

    def _join(self) -> bool:
        """Whether the one that leads has begun a walk."""
        self._backfill.look()
        self._ahead.expect()
        self.has_walked |= not self._backfill.done
        return not self._backfill.done

    @property
    def _has_pages(self) -> bool:
        """Whether the walk has a page that was not taken yet."""
        return self._ahead.is_under_way or not self._backfill.exhausted

    def _has_room(self) -> bool:
        """Whether the walk can go on; it comes to its end once nothing of it is under way."""
        limit = _PAGES_AHEAD * self._page_rows if self._has_pages else 1
        return self._ledger.in_flight(Urgency.BACKFILL) < limit

    def _read_page(self) -> int | None:
        if time.monotonic() < self._page_due:
            return None
        began = time.monotonic()
        with self._stages.timed("read"):
            fence, page = self._ahead.take(self._page_rows)
        rows = page.rows
        wrong = [row.key for row in rows if not row.unchanged] if self._backfill.was_proven else []
        portion = Portion(
            Urgency.BACKFILL,
            fence,
            len(rows),
            last_key=rows[-1].key if rows else None,
            not_fresh=len(faults(self._connection, self._bound, wrong)),
            number=page.number,
            ends=page.ends,
            fills=not self._backfill.was_proven,
        )
        if rows or page.ends:
            self._ledger.open(portion)
        self._ahead.begin(self._page_rows)
        if self._backfill.proves:
            self._page_due = time.monotonic() + min(_LONGEST_REST, _REST * (time.monotonic() - began))
        if rows:
            self._handle(portion, rows)
        return len(rows)

    def _finish(self) -> int | None:
        """The last page is written: remove orphans, compare vectors, a step at a time, then end the walk."""
        if not self._share.is_whole and not self._is_walked():
            return None
        if self._proof is None and not self._scan_orphans():
            return 0
        if self._proof is None:
            rows = self._settings.prove_vectors if self._backfill.proves else 0
            sample = VectorSample(self._connection, self._bound, rows)
            self._proof = Proof(sample, self._dispatcher, self._settings.precision, self._ledger)
        if not self._proof.step():
            with self._epoch.transaction(self._connection):
                is_over = self._backfill.finish(self._lost + self._proof.wrong, self._proof.same)
            self._proof = None
            if is_over:
                now = time.monotonic()
                self._proof_due = now + self._proof_every
                self._requests.walk_ends(now - self._began)
        return 0

    def _is_walked(self) -> bool:
        """Whether the others have passed their ranges too, and it is for this member to end the walk."""
        if self._proof is not None or self._orphans is not None:
            return True
        if time.monotonic() < self._page_due:
            return False
        left = self._backfill.left()
        self._backfill.done = left.is_over
        if self._share.leads and not (left.is_over or left.is_free or left.is_others):
            return True
        if left.is_free:
            self._backfill.look()  # it may be of another walk, which has begun since
        else:
            self._page_due = time.monotonic() + _OTHERS_SECONDS
        return False

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
