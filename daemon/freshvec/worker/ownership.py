"""Ownership: which worker keeps a sync. An advisory lock on the listener's connection, gone with it."""

from freshvec.db import LOCK_CLASS, Connection, queries, translated

_SQL = queries("worker/ownership")


def own(connection: Connection, sync_id: int) -> bool:
    """Try to become the owner of a sync, as long as this connection lives."""
    with translated("own", "a sync"):
        row = connection.execute(_SQL["own"], {"class": LOCK_CLASS, "sync": sync_id}).fetchone()
    return bool(row and row[0])


def owner(connection: Connection, sync_id: int) -> tuple[int, str] | None:
    """Backend pid and application name of a sync's owner."""
    with translated("find the owner of", "a sync"):
        row = connection.execute(_SQL["owner"], {"class": LOCK_CLASS, "sync": sync_id}).fetchone()
    return None if row is None else (row[0], row[1])
