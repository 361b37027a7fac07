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
    each connection keeps a process of its own.
    """
    process = _process(connection)
    if process == connection.info.backend_pid:
        return False
    with closing(another()) as other:
        for _ in range(_ROUNDS):
            if _process(other) == process:
                return True
            with other.transaction():  # keeps its session, so that taking turns gives this one another
                if _process(other) == process or _process(connection) != process:
                    return True
    return False


def _process(connection: Connection) -> int:
    """The server's process that answers this transaction."""
    cursor = connection.execute("SELECT pg_catalog.pg_backend_pid()", prepare=False)
    (process,) = cursor.fetchone() or (0,)
    return int(process)
