"""What is shown while tables are filled: bars on a terminal, elsewhere a log line every few seconds."""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from loguru import logger
from pydantic import SecretStr

from freshvec import logs
from freshvec.cli.amounts import duration, memory
from freshvec.cli.app import new_console
from freshvec.db import connect
from freshvec.errors import DatabaseError
from freshvec.health.status import read
from freshvec.pipeline.progress import resident_mib
from freshvec.schema import migrations
from freshvec.worker.keeper import Keeper
from freshvec.worker.worker import Worker

if TYPE_CHECKING:
    from rich.live import Live

_LOG_SECONDS = 5.0
_JOURNAL_SECONDS = 60.0  # a journal keeps every line
_IDLE_SECONDS = 0.5  # between looks for something to show
_QUIET_SECONDS = 2.0  # the same once all is fresh
_READ_SECONDS = 1.0  # between attempts to read how many rows there are


@dataclass
class _Work:
    """What one sync has to do: so many rows of which so many are done, the keeper's count included."""

    total: int
    before: int

    def done(self, keeper: Keeper) -> int:
        return max(0, min(self.before + keeper.progress.snapshot().done, self.total))


class ProgressView:
    """Shows what every keeper has to do until its rows are fresh, and says so; then nothing.

    `tick` is called every `tick_seconds`. With `anew` every row is compared, whatever was fresh before.
    """

    def __init__(self, url: SecretStr, *, anew: bool = False, has_bars: bool = True) -> None:
        self._url = url
        self._anew = anew
        self._has_bars = has_bars and sys.stderr.isatty() and new_console(stderr=True).is_interactive
        self._live: Live | None = None
        is_journal = logs.is_journal(sys.stderr.fileno())
        self._line_seconds = _JOURNAL_SECONDS if is_journal else _LOG_SECONDS
        self._started = time.monotonic()
        self._line_due: dict[str, float] = {}
        self._read_due = 0.0
        self._works: dict[Keeper, _Work] = {}
        self._told: set[Keeper] = set()
        self._is_showing = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._draw([])

    @property
    def tick_seconds(self) -> float:
        """Seconds until the next tick, while something is shown."""
        return 0.2 if self._has_bars else 1.0

    def pause(self, keepers: Sequence[Keeper]) -> float:
        """Seconds until the next tick: longer where nothing is shown, as while another worker owns all."""
        if self.is_quiet(keepers):
            return _QUIET_SECONDS
        return self.tick_seconds if self._is_showing else _IDLE_SECONDS

    def tick(self, keepers: Sequence[Keeper]) -> None:
        """Draw the bars, or log the lines that are due; say which syncs have become fresh."""
        running = [keeper for keeper in keepers if keeper.pipeline is not None and keeper not in self._told]
        self._told.intersection_update(keepers)
        self._works = {keeper: work for keeper, work in self._works.items() if keeper in keepers}
        self._measure(running)
        fresh = [keeper for keeper in running if keeper.is_fresh]
        left = [keeper for keeper in running if keeper in self._works and keeper not in fresh]
        self._is_showing = bool(left)
        if self._has_bars:
            self._draw(left)
        else:
            self._log(left)
        for keeper in fresh:
            self._tell(keeper, was_fresh=True)

    def is_quiet(self, keepers: Sequence[Keeper]) -> bool:
        """Whether there is nothing to show of any of them."""
        return all(keeper in self._told for keeper in keepers)

    def summary(self, worker: Worker) -> int:
        """Say how it went with the others. Returns how many rows failed, plus one per sync that was stopped
        early."""
        self._draw([])
        for keeper in worker.keepers:
            if keeper not in self._told:
                self._tell(keeper, was_fresh=keeper.was_fresh)
        return sum(keeper.progress.snapshot().failed + (not keeper.was_fresh) for keeper in worker.keepers)

    def _measure(self, keepers: Sequence[Keeper]) -> None:
        """How many rows there are to do, of syncs that are seen for the first time."""
        now = time.monotonic()
        if all(keeper in self._works for keeper in keepers) or now < self._read_due:
            return
        self._read_due = now + _READ_SECONDS
        rows = self._rows()
        for keeper in keepers:
            row = rows.get(keeper.sync.name)
            if row is not None and keeper not in self._works:
                self._works[keeper] = self._work(row, keeper)

    def _work(self, row: dict[str, Any], keeper: Keeper) -> _Work:
        total = int(row["rows_total"] or 0)
        if row["backfill_done"] and not self._anew:
            return _Work(int(row["backlog"] or 0), 0)
        passed = 0 if row["backfill_done"] else round(row["coverage"] * total)
        return _Work(total, passed - keeper.progress.snapshot().done)

    def _rows(self) -> dict[str, dict[str, Any]]:
        """Rows of `freshvec.status` by sync; none while the database does not answer."""
        try:
            with connect(self._url, "progress") as connection:
                is_made = migrations.is_bootstrapped(connection)
                return {row["sync"]: row for row in read(connection)} if is_made else {}
        except DatabaseError as error:
            logger.debug("{}", error)
            return {}

    def _tell(self, keeper: Keeper, *, was_fresh: bool) -> None:
        """Say that a sync's rows are fresh, or that it was stopped before they were."""
        self._told.add(keeper)
        name, shown = keeper.sync.name, keeper.progress.snapshot()
        row = self._rows().get(name, {})
        failed = row.get("rows_failed") or shown.failed
        state = "stopped before the end; run it again to go on"
        if was_fresh and failed:
            state = f"fresh but for {failed:,} rows whose text could not be encoded (see `freshvec status`)"
        elif was_fresh:
            state = "every row is fresh"
        if was_fresh and not shown.done:
            logger.info("{}: {}", name, state)
            return
        took = time.monotonic() - self._started
        parts = [
            f"{shown.done:,} rows in {duration(took)}",
            f"{shown.encoded:,} encoded",
            f"{shown.done / max(took, 0.001):.0f} rows/s",
            *cut(keeper),
            f"{shown.failed:,} failed",
            f"{resident_mib():.0f} MiB",
        ]
        logger.info("{}: {}; {}", name, state, ", ".join(parts))

    def _draw(self, keepers: Sequence[Keeper]) -> None:
        """The bars of these, and no bars where there are none."""
        if not keepers:
            if self._live is not None:
                self._live.stop()
                self._live = None
            return
        from rich.live import Live

        from freshvec.cli.bars import Bar, drawn

        if self._live is None:
            self._live = Live(console=new_console(stderr=True), auto_refresh=False, transient=True)
            self._live.start()
            self._live.console.show_cursor(True)  # a second Ctrl-C ends the process as it is
        bars = []
        for keeper in keepers:
            work = self._works[keeper]
            done = work.done(keeper)
            bars.append(Bar(keeper.sync.name, done, work.total, notes(keeper, work.total - done)))
        self._live.update(drawn(bars, *self._live.console.size), refresh=True)

    def _log(self, keepers: Sequence[Keeper]) -> None:
        now = time.monotonic()
        for keeper in keepers:
            name, work = keeper.sync.name, self._works[keeper]
            if now < self._line_due.get(name, 0.0):
                continue
            self._line_due[name] = now + self._line_seconds
            done = work.done(keeper)
            parts = ", ".join(notes(keeper, work.total - done))
            logger.info("{}: {:,} of {:,} rows, {}", name, done, work.total, parts)


def notes(keeper: Keeper, left: int) -> list[str]:
    """Rate, time for the rows left, cut texts, memory and batch size; the most important first."""
    shown = keeper.progress.snapshot()
    eta = duration(left / shown.rows_per_second) if shown.rows_per_second else "–"
    parts = [
        f"{shown.rows_per_second:.0f} rows/s",
        f"ETA {eta}",
        *cut(keeper),
        f"{resident_mib():.0f} MiB",
        f"batches of {keeper.dispatcher.budget.settled:,} tokens",
    ]
    if keeper.dispatcher.memory:
        parts.append(f"GPU {memory(keeper.dispatcher.memory.used, keeper.dispatcher.memory.total)}")
    return parts


def cut(keeper: Keeper) -> list[str]:
    """How many texts were longer than the model reads, where any were."""
    count = keeper.progress.snapshot().truncated
    return [f"{count:,} cut at {keeper.dispatcher.encoder.max_tokens:,} tokens"] if count else []


@contextmanager
def followed(worker: Worker, view: ProgressView) -> Iterator[None]:
    """The view of a worker that goes on for ever, on a thread of its own; it says once that all is done."""
    ending = threading.Event()

    def follow() -> None:
        is_said = False
        pause = 0.0
        while not ending.wait(pause):
            keepers = list(worker.keepers)
            try:
                view.tick(keepers)
            except Exception as error:  # what is shown must not end what is done
                logger.debug("the progress cannot be shown: {}: {}", type(error).__name__, error)
            is_quiet = view.is_quiet(keepers)
            if is_quiet and not is_said:
                logger.info("nothing is left to do; changes are followed as they come")
            is_said = is_quiet
            pause = view.pause(keepers)

    thread = threading.Thread(target=follow, name="progress", daemon=True)
    with view:
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join(5.0)
