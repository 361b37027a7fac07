"""Whether a pooler before the server lends one session to several clients in turn."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg

Connection = psycopg.Connection[tuple[Any, ...]]

_ROUNDS = 5


def shares_sessions(connection: Connection, another: Callable[[], Connection]) -> bool:
    """Whether another client can have this connection's session between its transactions, or it theirs.

    Both connections are in autocommit mode and have set nothing: it would stay in a session that is shared.
    A server announces its own process when a client connects; a pooler, or a proxy that is none, some number.
    So a second connection looks closer only where the two differ. In a pool of sessions, and behind a proxy,
    each connection keeps a process of its own, and nobody else gives that anything to do.
    """
    process = process_of(connection)
    if process == connection.info.backend_pid:
        return False
    with closing(another()) as other:
        for _ in range(_ROUNDS):
            if process_of(other) == process:
                return True
            with other.transaction():  # keeps its session, so that taking turns gives this one another
                if process_of(other) == process or process_of(connection) != process:
                    return True
            # Clients of a busy pool may come by in step, so that each finds the same session every time.
            if _is_used_by_others(connection, other):
                return True
    return False


def process_of(connection: Connection) -> int:
    """The server's process that answers this transaction."""
    cursor = connection.execute("SELECT pg_catalog.pg_backend_pid()", prepare=False)
    (process,) = cursor.fetchone() or (0,)
    return int(process)


def _is_used_by_others(connection: Connection, other: Connection) -> bool:
    """Whether the session that answers this connection has been asked something else since, or is gone. Where
    the server does not tell what sessions do, nobody knows."""
    asked = "SELECT pg_catalog.pg_backend_pid(), pg_catalog.statement_timestamp()"
    process, at = connection.execute(asked, prepare=False).fetchone() or (0, None)
    look = (
        "SELECT query_start, pg_catalog.current_setting('track_activities')::pg_catalog.bool"
        " FROM pg_catalog.pg_stat_get_activity(%s)"
    )
    seen = other.execute(look, (process,), prepare=False).fetchone()
    if seen is None:
        return True
    last, is_told = seen
    return bool(is_told and last is not None and last != at)
