"""What a backfill shows: a progress bar on a terminal, elsewhere a log line every few seconds; a summary."""

import time
from types import TracebackType
from typing import Self

from loguru import logger
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from freshvec.cli.status_view import duration, memory
from freshvec.config import Settings
from freshvec.db import connect
from freshvec.errors import DatabaseError
from freshvec.health.status import read
from freshvec.pipeline.progress import resident_mib
from freshvec.worker.keeper import Keeper
from freshvec.worker.worker import Worker

_LOG_SECONDS = 5.0


class BackfillView:
    """Shows every keeper's progress. The worker calls `tick` every `tick_seconds`."""

    def __init__(self, console: Console, settings: Settings) -> None:
        self._console = console
        self._settings = settings
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
                TextColumn("{task.fields[note]}"),
                console=console,
            )
        self.tick_seconds = 0.2 if self._bar else 1.0
        self._tasks: dict[str, TaskID] = {}
        self._totals: dict[str, int] = {}
        self._started = time.monotonic()
        self._logged = self._started

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def tick(self, keepers: list[Keeper]) -> None:
        """Redraw the bar, or log a line when one is due."""
        due = time.monotonic() - self._logged >= _LOG_SECONDS
        for keeper in keepers:
            if keeper.pipeline is None:
                continue
            name = keeper.sync.name
            if name not in self._totals:
                self._totals[name] = self._count(name)
            if self._bar:
                if name not in self._tasks:
                    self._tasks[name] = self._bar.add_task(name, total=self._totals[name], note="")
                done = min(keeper.progress.snapshot().done, self._totals[name])
                self._bar.update(self._tasks[name], completed=done, note=note(keeper, self._totals[name]))
            elif due:
                logger.info(
                    "{}: {:,} of {:,} rows, {}",
                    name,
                    keeper.progress.snapshot().done,
                    self._totals[name],
                    note(keeper, self._totals[name]),
                )
        if due:
            self._logged = time.monotonic()

    def summary(self, worker: Worker) -> int:
        """Log how it went. Returns how many rows failed, plus one per sync that was stopped early."""
        took = time.monotonic() - self._started
        unfinished = 0
        for keeper in worker.keepers:
            shown = keeper.progress.snapshot()
            if self._bar and keeper.sync.name in self._tasks:
                self._bar.update(
                    self._tasks[keeper.sync.name],
                    completed=shown.done,
                    total=max(shown.done, 1),
                    note=note(keeper, self._totals[keeper.sync.name]),
                )
            unfinished += shown.failed + (not keeper.was_fresh)
            state = (
                "every row is fresh" if keeper.was_fresh else "stopped before the end; run it again to go on"
            )
            logger.info(
                "{}: {}; {:,} rows in {}, {:,} encoded, {:.0f} rows/s, "
                "{:,} truncated, {:,} failed, {:.0f} MiB",
                keeper.sync.name,
                state,
                shown.done,
                duration(took),
                shown.encoded,
                shown.done / max(took, 0.001),
                shown.truncated,
                shown.failed,
                resident_mib(),
            )
        return unfinished

    def _count(self, name: str) -> int:
        """The rows of a sync's table, 0 where they cannot be counted."""
        try:
            with connect(self._settings.database.url, "progress") as connection:
                return next(
                    (int(row["rows_total"] or 0) for row in read(connection) if row["sync"] == name), 0
                )
        except DatabaseError:
            return 0


def note(keeper: Keeper, total: int) -> str:
    """Rate, time left, memory and batch size of a keeper whose table has `total` rows."""
    shown = keeper.progress.snapshot()
    left = max(0, total - shown.done)
    eta = duration(left / shown.rows_per_second) if shown.rows_per_second else "–"
    parts = [
        f"{shown.rows_per_second:.0f} rows/s",
        f"ETA {eta}",
        f"{shown.truncated:,} truncated",
        f"{resident_mib():.0f} MiB",
        f"batches of {keeper.dispatcher.budget.settled:,} tokens",
    ]
    if keeper.dispatcher.memory:
        parts.append(f"GPU {memory(keeper.dispatcher.memory.used, keeper.dispatcher.memory.total)}")
    return ", ".join(parts)
