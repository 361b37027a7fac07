"""Faults: rows that are not fresh though nothing was noted of them. A row that is merely queued is none."""

from typing import LiteralString

import psycopg

from freshvec.db import Session, queries
from freshvec.records import Key
from freshvec.source.bound import BoundSync
from freshvec.source.rows import is_of_the_row

_SQL = queries("scans/faults")


def faults(connection: Session, bound: BoundSync, keys: list[Key], *, failed: bool = False) -> list[Key]:
    """Those of the keys whose row is at fault now; with `failed`, those too whose text could not be
    encoded."""
    if not keys:
        return []
    try:
        return _ask(connection, bound, _SQL["faults"], keys, failed)
    except psycopg.Error as error:
        if not is_of_the_row(error):
            raise
    if len(keys) == 1:  # its text cannot be read
        return _ask(connection, bound, _SQL["not_queued"], keys, failed) if failed else []
    middle = len(keys) // 2
    halves = keys[:middle], keys[middle:]
    return [key for half in halves for key in faults(connection, bound, half, failed=failed)]


def _ask(
    connection: Session, bound: BoundSync, query: LiteralString, keys: list[Key], failed: bool
) -> list[Key]:
    given = bound.key_arrays(keys) | {"fingerprint": bound.model.fingerprint, "failed": failed}
    with connection.transaction():
        connection.execute(_SQL["many_at_once"])
        return [keys[place - 1] for (place,) in connection.execute(bound.compose(query), given)]
