"""Status: how fresh every sync is, read from the SQL view."""

from typing import Any

from psycopg.rows import dict_row

from freshvec.db import Connection, queries, translated

_SQL = queries("health/status")


def read(connection: Connection) -> list[dict[str, Any]]:
    """One mapping a sync, with the columns of `freshvec.status`."""
    with translated("read", "freshvec.status"), connection.cursor(row_factory=dict_row) as cursor:
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
    """Whether every row has its embedding and nothing waits."""
    return bool(
        row["coverage"] == 1 and row["backlog"] == 0 and row["backfill_done"] and not row["rescan_waiting"]
    )
