"""Backfill: a walk over the source by keyset pages, resumable, that encodes whatever is not fresh.

The same walk answers a rescan: it compares every row's hash, so it repairs whatever triggers missed.
"""

from freshvec.db import Connection, queries
from freshvec.records import Key, SourceRow
from freshvec.scans.keyset import KeysetPages
from freshvec.source.bound import BoundSync
from freshvec.source.rows import source_rows

_SQL = queries("scans/backfill")


class Backfill:
    """The walk of one sync. Where it is lives in the database; this object reads ahead of that."""

    def __init__(self, connection: Connection, bound: BoundSync) -> None:
        self._connection = connection
        self._bound = bound
        after, self.done = connection.execute(bound.compose(_SQL["state"])).fetchone() or (None, True)
        self._pages = self._pages_after(tuple(after) if after else None)

    @property
    def exhausted(self) -> bool:
        """Whether every page has been read, though maybe not yet written."""
        return self.done or self._pages.is_exhausted

    def read_page(self, limit: int) -> tuple[int, list[SourceRow]]:
        """The next page in key order and its fence. An empty page ends the walk."""
        row = self._connection.execute(_SQL["fence"]).fetchone()
        assert row is not None
        return row[0], source_rows(self._pages.read(limit, fingerprint=self._bound.model.fingerprint))

    def restart(self, rescans: list[int]) -> None:
        """Begin the walk again, and with that answer these rescan requests."""
        with self._connection.transaction():
            self._connection.execute(self._bound.compose(_SQL["restart"]))
            self._connection.execute(self._bound.compose(_SQL["answer_rescans"]), {"ids": rescans})
        self.done = False
        self._pages = self._pages_after(None)

    def finish(self) -> None:
        """The last page is written and the orphans are removed."""
        self._connection.execute(self._bound.compose(_SQL["finish"]))
        self.done = True

    def _pages_after(self, key: Key | None) -> KeysetPages:
        return KeysetPages(self._connection, self._bound, _SQL["page"], after=key)


def checkpoint(connection: Connection, bound: BoundSync, key: Key) -> None:
    """Note, in the caller's transaction, that every row up to `key` is written."""
    connection.execute(bound.compose(_SQL["checkpoint"]), {"after": list(key)})
