"""Retry: queue every row whose text could not be encoded."""

from freshvec.db import Connection, queries, translated
from freshvec.source.bound import BoundSync

_SQL = queries("scans/retry")


def retry(connection: Connection, bound: BoundSync) -> int:
    """Queue them and wake the worker; returns how many. Raises DatabaseError."""
    with translated("retry", f"sync {bound.name!r}"):
        queued = connection.execute(bound.compose(_SQL["retry"]), ()).rowcount
        connection.execute(bound.compose(_SQL["ring"]))
    return queued
