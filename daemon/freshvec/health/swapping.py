"""A swap as it stands: how far each edition is, and what keeps one from being shown."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from freshvec.config import Sync
from freshvec.db import Connection, queries, translated
from freshvec.health import status
from freshvec.source.bound import BoundSync
from freshvec.target import index

_SQL = queries("health/swapping")


@dataclass(frozen=True)
class Standing:
    """How an edition stands: its row of `freshvec.status`, None before it was applied."""

    sync: Sync
    row: dict[str, Any] | None
    is_shown: bool = True
    is_leaving: bool = False
    kept_until: datetime | None = None
    begun_at: datetime | None = None

    @property
    def is_filled(self) -> bool:
        return self.row is not None and bool(self.row["backfill_done"]) and not self.row["rescan_waiting"]


@dataclass(frozen=True)
class Obstacle:
    """Why an edition is not to be shown yet, and what helps. `may_be_forced`: it serves all the same."""

    problem: str
    remedy: str
    may_be_forced: bool = False


def standing(connection: Connection, sync: Sync) -> Standing:
    """How one edition stands. Raises DatabaseError."""
    rows = [row for row in status.read(connection) if row["sync"] == sync.name]
    with translated("look at", f"sync {sync.name!r}"):
        noted = connection.execute(_SQL["edition"], {"name": sync.name}).fetchone()
    return Standing(sync, rows[0] if rows else None, *(noted or ()))


def obstacles(connection: Connection, bound: BoundSync, seen: Standing) -> Iterator[Obstacle]:
    """What keeps an edition from being shown, apart from changes of this moment."""
    name, row = bound.name.partition(".")[0], seen.row
    if row is None:
        yield Obstacle("nothing of it was made yet", f"`freshvec apply {name}` makes it, or a worker.")
        return
    if row["trouble"]:
        yield Obstacle(str(row["trouble"]), "Mend what it says.")
    if not seen.is_filled:
        share = f"{row['coverage']:.0%} of its rows have their vectors"
        helps = "a worker is at it" if row["owner_pid"] else "no worker runs: start `freshvec run`"
        yield Obstacle(f"it is not filled: {share}", f"Wait; {helps}.")
    if row["rows_failed"]:
        problem = f"the texts of {row['rows_failed']:,} rows could not be encoded"
        yield Obstacle(problem, f"`freshvec retry {name}` tries them again.", may_be_forced=True)
    found = index.look(connection, bound)
    if seen.is_filled and found is not None and not index.serves(bound, found):
        yield Obstacle("its index is not built", "Wait for the worker that builds it.", may_be_forced=True)
