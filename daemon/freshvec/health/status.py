"""Status: how fresh every sync is, read from the SQL view."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg.rows import dict_row

from freshvec.config import Sync
from freshvec.db import Connection, queries, translated
from freshvec.health.declared import Amiss, amiss
from freshvec.schema import migrations

_SQL = queries("health/status")


@dataclass(frozen=True)
class Seen:
    """A look at every sync: rows of `freshvec.status`, the latest failures of each, and which are amiss as a
    whole. What is known of those makes their rows stale, whatever was counted."""

    rows: list[dict[str, Any]]
    failures: dict[str, list[dict[str, Any]]]
    amiss: dict[str, Amiss]

    def as_values(self) -> list[dict[str, Any]]:
        """One mapping a sync, with its state, what is amiss, and its failures; also of those that were never
        applied."""
        found = {row["sync"]: row for row in self.rows}
        for name in self.amiss.keys() - found.keys():
            found[name] = {"sync": name, "coverage": 0.0}
        return [
            row
            | {
                "state": self.state(row),
                "amiss": self.amiss[name].message if name in self.amiss else None,
                "failures": self.failures.get(name, []),
            }
            for name, row in sorted(found.items())
        ]

    def state(self, row: dict[str, Any]) -> str:
        """One word or two for how a sync is: what a person looks at first."""
        known = self.amiss.get(row["sync"])
        return known.state if known else state(row)

    def without(self, names: Collection[str]) -> "Seen":
        """The same but for some syncs."""
        rows = [row for row in self.rows if row["sync"] not in names]
        others = {name: known for name, known in self.amiss.items() if name not in names}
        return replace(self, rows=rows, amiss=others)

    def is_within(self, max_lag: float | None, min_coverage: float | None) -> bool:
        """Whether all is as declared, and fresh or as near to it as is asked for."""
        return not self.amiss and all(is_within(row, max_lag, min_coverage) for row in self.rows)


def look(
    connection: Connection, declared: Sequence[Sync], fingerprints: Mapping[str, str] | None = None
) -> Seen:
    """How all is; before the first `apply`, that nothing is there. `fingerprints`: as for `amiss`."""
    is_made = migrations.is_bootstrapped(connection)
    found = amiss(connection, declared, fingerprints)
    rows = [_stale(row) if row["sync"] in found else row for row in read(connection)] if is_made else []
    return Seen(rows, failures(connection) if is_made else {}, found)


def _stale(row: dict[str, Any]) -> dict[str, Any]:
    """A sync that is amiss: no row of it is known to have the vector that is declared."""
    waiting = row["backlog"] if row["rows_total"] is None else max(row["backlog"] or 0, row["rows_total"])
    return row | {"coverage": 0.0, "rows_fresh": 0, "backlog": waiting, "eta_seconds": None}


def read(connection: Connection) -> list[dict[str, Any]]:
    """One mapping a sync, with the columns of `freshvec.status`."""
    with translated("read", "freshvec.status"), connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(_SQL["allow_views"])
        return cursor.execute(_SQL["all"]).fetchall()


def failures(connection: Connection, most: int = 5) -> dict[str, list[dict[str, Any]]]:
    """Key and error of the latest rows of each sync whose text could not be encoded, at most `most` a
    sync."""
    found: dict[str, list[dict[str, Any]]] = {}
    with translated("read", "freshvec.failures"):
        for sync, key, error in connection.execute(_SQL["failures"], {"most": most}).fetchall():
            found.setdefault(sync, []).append({"key": key, "error": error})
    return found


def is_fresh(row: dict[str, Any]) -> bool:
    """Whether every row has its embedding, nothing waits, and nothing is known to keep it from being so."""
    return bool(
        row["coverage"] == 1
        and row["backlog"] == 0
        and row["backfill_done"]
        and not row["rescan_waiting"]
        and row["trouble"] is None
    )


def is_within(row: dict[str, Any], max_lag: float | None, min_coverage: float | None) -> bool:
    """Whether it is fresh, or as near to it as is asked for: the oldest change that waits is no older than
    `max_lag` seconds, and the share of rows that have their vector no smaller than `min_coverage`."""
    if is_fresh(row):
        return True
    if row["trouble"] is not None or (max_lag is None and min_coverage is None):
        return False
    is_late = max_lag is not None and (row["oldest_unfresh_seconds"] or 0.0) > max_lag
    return not is_late and (min_coverage is None or row["coverage"] >= min_coverage)


def state(row: dict[str, Any]) -> str:
    """One word or two for how a sync is: what a person looks at first."""
    if row["owner_pid"] is None:
        return "no worker"
    if row["last_error"] or row["trouble"]:
        return "trouble"
    if row["paused"]:
        return "paused"
    return "fresh" if is_fresh(row) else "backfilling" if not row["backfill_done"] else "catching up"


def what_holds_up(row: dict[str, Any]) -> str:
    """Why not everything is fresh, as far as the row of `freshvec.status` tells."""
    if row["trouble"] or row["last_error"]:
        return str(row["trouble"] or row["last_error"])
    if row["owner_pid"] is None:
        return "no worker runs"
    if row["paused"]:
        return f"bulk work is paused: {row['paused']}"
    failed = f"the texts of {row['rows_failed']:,} could not be encoded" if row["rows_failed"] else ""
    asked = "the table is to be walked again, maybe once open transactions are over"
    asked = asked if row["rescan_waiting"] else ""
    waiting = f"{row['backlog']:,} rows wait" if row["backlog"] or not (failed or asked) else ""
    return ", ".join(filter(None, (waiting, asked, failed)))
