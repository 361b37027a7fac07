"""What is shown while several workers fill tables: read from the database, which alone knows of all."""

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from loguru import logger
from pydantic import SecretStr

from freshvec import logs
from freshvec.cli.amounts import duration
from freshvec.cli.app import new_console
from freshvec.db import connect
from freshvec.errors import DatabaseError
from freshvec.health.status import is_fresh, read
from freshvec.schema import migrations

if TYPE_CHECKING:
    from rich.live import Live

_LINE_SECONDS = 5.0
_JOURNAL_SECONDS = 60.0  # a journal keeps every line
_BAR_SECONDS = 1.0
_RATE_SECONDS = 10.0  # over which a rate is taken

Row = Mapping[str, Any]


class FleetView:
    """Bars on a terminal, elsewhere a line every few seconds, until every row of these syncs is fresh.

    With `once` it is left to `summary` to say what is fresh: those who fill the tables may not be done.
    """

    def __init__(self, url: SecretStr, syncs: Sequence[str], *, has_bars: bool, once: bool) -> None:
        self._url = url
        self._syncs = syncs
        self._once = once
        self._has_bars = has_bars and sys.stderr.isatty() and new_console(stderr=True).is_interactive
        self._live: Live | None = None
        self._began = time.monotonic()
        self._first: dict[str, int] = {}  # rows that were fresh at the first look
        self._seen: dict[str, deque[tuple[float, int]]] = {}
        self._told: set[str] = set()
        is_journal = logs.is_journal(sys.stderr.fileno())
        self.pause = _BAR_SECONDS if self._has_bars else _JOURNAL_SECONDS if is_journal else _LINE_SECONDS

    def tick(self) -> bool:
        """Show how far all is, and say which syncs have become fresh. Returns whether all of them are."""
        rows = self._rows()
        now = time.monotonic()
        for name, row in rows.items():
            seen = self._seen.setdefault(name, deque())
            seen.append((now, _fresh(row)))
            self._first.setdefault(name, seen[0][1])
            while len(seen) > 2 and now - seen[1][0] > _RATE_SECONDS:
                seen.popleft()
            if _is_done(row) and name not in self._told and not self._once:
                self._tell(name, row)
        self._show({name: row for name, row in rows.items() if name not in self._told})
        return self._told.issuperset(self._syncs)

    def summary(self) -> int:
        """Say how it went with the others. Returns how many rows failed, plus one per sync that is not
        fresh."""
        self.close()
        rows = self._rows()
        for name in self._syncs:
            if name not in self._told:
                self._tell(name, rows.get(name))
        left = sum(not _is_done(rows.get(name)) for name in self._syncs)
        return left + sum(int(row["rows_failed"] or 0) for row in rows.values())

    def close(self) -> None:
        """Take the bars away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _rows(self) -> dict[str, Row]:
        """Rows of `freshvec.status` by sync; none while the database does not answer."""
        try:
            with connect(self._url, "progress") as connection:
                rows = read(connection) if migrations.is_bootstrapped(connection) else []
        except DatabaseError as error:
            logger.debug("{}", error)
            return {}
        return {row["sync"]: row for row in rows if row["sync"] in self._syncs}

    def _rate(self, name: str) -> float:
        (began, before), (ended, after) = self._seen[name][0], self._seen[name][-1]
        return max(0, after - before) / (ended - began) if ended > began else 0.0

    def _show(self, rows: Mapping[str, Row]) -> None:
        if self._has_bars:
            self._draw(rows)
            return
        for name, row in rows.items():
            notes = ", ".join(self._notes(name, row))
            logger.info("{}: {:,} of {:,} rows, {}", name, _fresh(row), row["rows_total"] or 0, notes)

    def _notes(self, name: str, row: Row) -> tuple[str, str]:
        """Rate, and time for the rows left."""
        rate = self._rate(name)
        left = max(0, int(row["rows_total"] or 0) - _fresh(row))
        return f"{rate:.0f} rows/s", f"ETA {duration(left / rate) if rate else '–'}"

    def _draw(self, rows: Mapping[str, Row]) -> None:
        if not rows:
            self.close()
            return
        from rich.live import Live

        from freshvec.cli.bars import Bar, drawn

        bars = [
            Bar(name, _fresh(row), int(row["rows_total"] or 0), self._notes(name, row))
            for name, row in rows.items()
        ]
        if self._live is None:
            self._live = Live(console=new_console(stderr=True), auto_refresh=False, transient=True)
            self._live.start()
            self._live.console.show_cursor(True)  # a second Ctrl-C ends the process as it is
        self._live.update(drawn(bars, *self._live.console.size), refresh=True)

    def _tell(self, name: str, row: Row | None) -> None:
        """Say that a sync's rows are fresh, or that it was stopped before they were."""
        failed = int(row["rows_failed"] or 0) if row else 0
        state = "stopped before the end; run it again to go on"
        if _is_done(row):
            self._told.add(name)
            state = "every row is fresh"
            if failed:
                state = (
                    f"fresh but for {failed:,} rows whose text could not be encoded (see `freshvec status`)"
                )
        took = time.monotonic() - self._began
        fresh = _fresh(row) if row else 0
        added = max(0, fresh - self._first.get(name, fresh))
        rate = f"{added:,} rows in {duration(took)}, {added / max(took, 0.001):.0f} rows/s"
        logger.info("{}: {}; {}", name, state, rate if added else f"{fresh:,} rows")


def _fresh(row: Row) -> int:
    """How many rows have their vector; while a table is filled, those that the walk has passed."""
    return round((row["coverage"] or 0.0) * int(row["rows_total"] or 0))


def _is_done(row: Row | None) -> bool:
    """Whether no row of it waits; those whose texts cannot be encoded do not."""
    if row is None:
        return False
    failed = int(row["rows_failed"] or 0)
    is_settled = bool(row["backfill_done"]) and not row["backlog"] and row["trouble"] is None
    return is_fresh(dict(row)) or (is_settled and not row["rescan_waiting"] and failed > 0)


@contextmanager
def followed(view: FleetView) -> Iterator[None]:
    """The view on a thread of its own, until all is fresh or what it follows has ended."""
    ending = threading.Event()

    def follow() -> None:
        while not ending.wait(view.pause):
            try:
                if view.tick():
                    logger.info("nothing is left to do; changes are followed as they come")
                    return
            except Exception as error:  # what is shown must not end what is done
                logger.debug("the progress cannot be shown: {}: {}", type(error).__name__, error)

    thread = threading.Thread(target=follow, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join(5.0)
        view.close()
