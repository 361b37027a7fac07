"""Status: how fresh every sync is, read from the SQL view."""

from typing import Any

from psycopg.rows import dict_row
from rich.table import Table

from embedsync.db import Connection, queries, translated

_SQL = queries("status")


def read(connection: Connection) -> list[dict[str, Any]]:
    """One mapping a sync, with the columns of `embedsync.status`."""
    with translated("read", "embedsync.status"), connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SQL["all"]).fetchall()


def failures(connection: Connection, most: int = 5) -> dict[str, list[dict[str, Any]]]:
    """Key and error of the latest rows of each sync whose text could not be encoded, at most `most` a sync."""
    found: dict[str, list[dict[str, Any]]] = {}
    with translated("read", "embedsync.failures"):
        for sync, key, error in connection.execute(_SQL["failures"], {"most": most}).fetchall():
            found.setdefault(sync, []).append({"key": key, "error": error})
    return found


def is_fresh(row: dict[str, Any]) -> bool:
    """Whether every row has its embedding and nothing waits."""
    return bool(row["coverage"] == 1 and row["backlog"] == 0 and row["backfill_done"] and not row["rescan_waiting"])


def table(rows: list[dict[str, Any]]) -> Table:
    """The status as a person reads it."""
    shown = Table(
        "sync", "state", "coverage", "rows", "backlog", "oldest", "rate", "ETA", "lag p50 / p99", "failed", title="embedsync",
        caption="\n".join(f"{row['sync']}: {device(row)}" for row in rows if row["device"]),
    )  # fmt: skip
    for row in rows:
        rate = row["rows_per_second"]
        shown.add_row(
            row["sync"], _state(row), f"{row['coverage']:.2%}", _number(row["rows_total"]), _number(row["backlog"]),
            duration(row["oldest_unfresh_seconds"]), f"{rate:.0f} rows/s" if rate else "–", duration(row["eta_seconds"]),
            f"{_ms(row['lag_p50_ms'])} / {_ms(row['lag_p99_ms'])}", _number(row["rows_failed"]),
        )  # fmt: skip
    return shown


def device(row: dict[str, Any]) -> str:
    """What encodes, how big its batches are, and its memory where it has one of its own."""
    said = [str(row["device"])]
    if row.get("batch_tokens") is not None:
        said.append(f"batches of {row['batch_tokens']:,} tokens")
    if row.get("device_memory_total_bytes"):
        said.append(memory(row["device_memory_used_bytes"] / 1e9, row["device_memory_total_bytes"] / 1e9))
    return ", ".join(said)


def memory(used: float, total: float) -> str:
    """A device's memory in GB as a person says it."""
    return f"{used:.1f} of {total:.1f} GB in use"


def duration(seconds: float | None) -> str:
    """Seconds as a person says them."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _state(row: dict[str, Any]) -> str:
    if row["owner_pid"] is None:
        return "no worker"
    if row["last_error"]:
        return "trouble"
    return "fresh" if is_fresh(row) else "backfilling" if not row["backfill_done"] else "catching up"


def _number(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} ms"
