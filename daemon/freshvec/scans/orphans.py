"""Orphans: target rows whose source row is gone."""

from freshvec.capture import queue
from freshvec.db import Connection, queries
from freshvec.records import Key
from freshvec.scans.keyset import KeysetPages
from freshvec.source.bound import BoundSync

_SQL = queries("scans/orphans")


class OrphanScan:
    """A walk over the keys of one sync's target."""

    def __init__(self, connection: Connection, bound: BoundSync) -> None:
        self._connection = connection
        self._bound = bound
        self._pages = KeysetPages(connection, bound, _SQL["orphans"], "t_keys")

    @property
    def is_done(self) -> bool:
        return self._pages.is_exhausted

    def find(self, limit: int) -> list[Key]:
        """The orphans among the next `limit` target rows."""
        return [row[:-1] for row in self._pages.read(limit) if row[-1]]

    def queue(self, limit: int) -> list[Key]:
        """The same, queued: the writer removes them under its lock and its fence."""
        orphans = self.find(limit)
        if orphans:
            queue.append(self._connection, self._bound, orphans)
        return orphans
