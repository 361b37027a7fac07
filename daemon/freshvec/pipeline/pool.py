"""The connections that all syncs of a worker share."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from psycopg.abc import Params, QueryNoTemplate
from pydantic import SecretStr

from freshvec.db import Connection, connect, queries

_SQL = queries("pipeline/pool")
_PLANS_SECONDS = 10.0  # that a plan is used: a table may have grown since it was made
Cursor = psycopg.Cursor[tuple[Any, ...]]


class Pool:
    """At most `size` connections, opened when they are needed; it stands where a connection is expected.

    A statement borrows one until its result is here, a transaction until it ends, for its thread. Nothing of
    a sync stays on a session. Whoever finds none waits, first come, first served. Raises DatabaseError where
    none can be opened.

    Plans are made for any values, since making one for few rows takes as long as using it, and are made anew
    after some seconds.
    """

    def __init__(
        self,
        url: SecretStr,
        purpose: str,
        size: int,
        plans_seconds: float = _PLANS_SECONDS,
        *,
        is_leased: bool = False,
    ) -> None:
        self._url = url
        self._purpose = purpose
        self._plans_seconds = plans_seconds
        self._is_leased = is_leased
        self._changed = threading.Condition()
        self._left = size  # that may still be borrowed
        self._idle: list[Connection] = []  # the last one used goes first, so that few are used
        self._planned: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()  # when plans were forgotten
        self._own = threading.local()  # the connection of the thread's transaction
        self._is_closed = False

    def execute(
        self,
        query: QueryNoTemplate,
        params: Params | None = None,
        *,
        prepare: bool | None = None,
        binary: bool = False,
    ) -> Cursor:
        """As a connection's: within this thread's transaction, or by itself."""
        own: Connection | None = getattr(self._own, "connection", None)
        if own is not None:
            return own.execute(query, params, prepare=prepare, binary=binary)
        with self._borrowed() as connection:
            return connection.execute(query, params, prepare=prepare, binary=binary)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """As a connection's: what this thread executes inside is one transaction, or part of one."""
        own: Connection | None = getattr(self._own, "connection", None)
        if own is not None:
            with own.transaction():
                yield
            return
        with self._borrowed() as connection:
            self._own.connection = connection
            try:
                with connection.transaction():
                    yield
            finally:
                self._own.connection = None

    def cursor(self) -> Cursor:
        """As a connection's, within this thread's transaction."""
        own: Connection = self._own.connection
        return own.cursor()

    def drop(self) -> None:
        """Close what is idle: the server has ended, and with it all sessions."""
        with self._changed:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """Close every connection, each once it is given back."""
        self._is_closed = True
        self.drop()

    @contextmanager
    def _borrowed(self) -> Iterator[Connection]:
        with self._changed:
            while not self._left:
                self._changed.wait()
            self._left -= 1
            connection = self._idle.pop() if self._idle else None
        try:
            if connection is None:
                connection = self._opened()
            yield connection
            self._forget_plans(connection)
        except psycopg.errors.FeatureNotSupported:
            # A statement was prepared for columns that have other types now: no session that knows it can run
            # it again. Those that are idle are closed as well.
            if connection is not None:
                connection.close()
            raise
        finally:
            self._give_back(connection)

    def _opened(self) -> Connection:
        connection = connect(self._url, self._purpose)
        connection.execute(_SQL["plan_for_any_values"])
        if self._is_leased:
            connection.execute(_SQL["hurry"])
        self._planned[connection] = time.monotonic()
        return connection

    def _forget_plans(self, connection: Connection) -> None:
        """Once they are old. Its user has what it asked for."""
        if time.monotonic() - self._planned[connection] > self._plans_seconds:
            connection.execute(_SQL["forget_plans"])
            self._planned[connection] = time.monotonic()

    def _give_back(self, connection: Connection | None) -> None:
        is_lost = connection is not None and connection.closed
        if is_lost:
            self.drop()
        elif connection is not None and self._is_closed:
            connection.close()
        with self._changed:
            self._left += 1
            if connection is not None and not connection.closed:
                self._idle.append(connection)
            self._changed.notify()
