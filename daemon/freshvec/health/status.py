"""Status: how fresh every sync is, read from the SQL view."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.rows import dict_row

from freshvec.config import Sync
from freshvec.db import Connection, queries, translated
from freshvec.schema import migrations
from freshvec.source.bound import text_of

_SQL = queries("health/status")


@dataclass(frozen=True)
class Seen:
    """A look at every sync: rows of `freshvec.status`, the latest failures of each, and what is declared and
    not applied."""

    rows: list[dict[str, Any]]
    failures: dict[str, list[dict[str, Any]]]
    unapplied: dict[str, str]

    def as_values(self) -> list[dict[str, Any]]:
        """One mapping a sync, with its failures."""
        return [row | {"failures": self.failures.get(row["sync"], [])} for row in self.rows]


def look(connection: Connection, declared: Sequence[Sync]) -> Seen:
    """How all is; before the first `apply`, that nothing is there."""
    is_made = migrations.is_bootstrapped(connection)
    rows = read(connection) if is_made else []
    return Seen(rows, failures(connection) if is_made else {}, unapplied(connection, declared))


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
    waiting = f"{row['backlog']:,} rows wait" if row["backlog"] or not failed else ""
    return ", ".join(filter(None, (waiting, failed)))


def unapplied(connection: Connection, declared: Sequence[Sync]) -> dict[str, str]:
    """Declared syncs that the database does not have as declared, each with what is to be done."""
    with translated("read", "freshvec.sync"):
        (is_made, encoding) = connection.execute(_SQL["server"]).fetchone() or (False, "")
        applied: dict[str, str] = dict(connection.execute(_SQL["definitions"]).fetchall()) if is_made else {}
    found = {}
    for sync in declared:
        if sync.name not in applied:
            found[sync.name] = f"declared, but never applied: run `freshvec apply {sync.name}`, or a worker"
        elif not _is_as_declared(json.loads(applied[sync.name] or "{}"), sync, encoding):
            found[sync.name] = (
                f"declared otherwise than applied: run `freshvec apply {sync.name}`, or a worker"
            )
    return found


def _is_as_declared(applied: dict[str, Any], sync: Sync, encoding: str) -> bool:
    """Whether text, model and target are those declared. What needs the model's files is left to `plan`."""
    text = hashlib.sha256(text_of(sync, encoding).as_string(None).encode()).hexdigest()
    schema, table = sync.target_name
    target = applied.get("target", ["", ""])
    return (
        applied.get("text") == text
        and str(applied.get("model")).split(" ")[0] == sync.model
        and target[1] == table
        and schema in (None, target[0])
    )
