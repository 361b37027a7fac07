"""Backfill: a walk over the source by keyset pages, resumable, that encodes whatever is not fresh.

The same walk answers a rescan: it compares every row's hash, so it repairs whatever triggers missed.
"""

from psycopg import sql

from embedsync.db import Connection, queries
from embedsync.queue import source_rows
from embedsync.records import Key, SourceRow
from embedsync.source import BoundSync

_SQL = queries("backfill")


class Backfill:
    """The walk of one sync. Where it is lives in the database; this object reads ahead of that."""

    def __init__(self, connection: Connection, bound: BoundSync) -> None:
        self._connection = connection
        self._bound = bound
        self._first = bound.compose(_SQL["page"], beyond=sql.SQL(""))
        self._next = bound.compose(_SQL["page"], beyond=bound.compose("WHERE ({keys}) > ({after})"))
        after, self.done = self._state()
        self._after: Key | None = after
        self.exhausted = self.done  # every page has been read, though maybe not yet written

    def _state(self) -> tuple[Key | None, bool]:
        row = self._connection.execute(self._bound.compose(_SQL["state"])).fetchone()
        after, done = row or (None, True)
        return (tuple(after) if after else None), done

    def read_page(self, limit: int, fingerprint: bytes) -> tuple[int, list[SourceRow]]:
        """The next page in key order and its token. An empty page ends the walk."""
        row = self._connection.execute(_SQL["token"]).fetchone()
        assert row is not None
        params = {"limit": limit, "fingerprint": fingerprint}
        if self._after is None:
            found = self._connection.execute(self._first, params, binary=True)
        else:
            found = self._connection.execute(self._next, params | self._bound.key_values(self._after), binary=True)
        rows = source_rows(found.fetchall())
        if rows:
            self._after = rows[-1].key
        self.exhausted = len(rows) < limit
        return row[0], rows

    def restart(self, rescans: list[int]) -> None:
        """Begin the walk again, and with that answer these rescan requests."""
        with self._connection.transaction():
            self._connection.execute(self._bound.compose(_SQL["restart"]))
            self._connection.execute(self._bound.compose(_SQL["answer_rescans"]), {"ids": rescans})
        self._after, self.done, self.exhausted = None, False, False

    def finish(self) -> None:
        """The last page is written and the orphans are removed."""
        self._connection.execute(self._bound.compose(_SQL["finish"]))
        self.done = True


def checkpoint(connection: Connection, bound: BoundSync, key: Key) -> None:
    """Note, in the caller's transaction, that every row up to `key` is written."""
    connection.execute(bound.compose(_SQL["checkpoint"]), {"after": list(key)})
