"""Orphans: target rows whose source row is gone. The same walk counts what the target holds."""

from freshvec.capture import queue
from freshvec.db import Session, queries
from freshvec.records import Key
from freshvec.scans.faults import faults
from freshvec.scans.keyset import KeysetPages
from freshvec.source.bound import BoundSync

_SQL = queries("scans/orphans")


class OrphanScan:
    """A walk over the keys of one sync's target. `embedded` and `failed` count its rows as they are
    passed."""

    def __init__(self, connection: Session, bound: BoundSync) -> None:
        self._connection = connection
        self._bound = bound
        self._pages = KeysetPages(connection, bound, _SQL["orphans"], "t_")
        self._before = self._kept_counts()
        self.embedded = 0
        self.failed = 0

    @property
    def is_done(self) -> bool:
        return self._pages.is_exhausted

    def queue(self, limit: int) -> list[Key]:
        """Queue the orphans among the next `limit` target rows, if nothing was noted of them.

        The writer removes them under its lock and its fence.
        """
        rows = self._pages.read(limit, fingerprint=self._bound.model.fingerprint)
        self.embedded += sum(row[-3] for row in rows)
        self.failed += sum(row[-2] for row in rows)
        orphans = faults(self._connection, self._bound, [row[:-3] for row in rows if row[-1]])
        if orphans:
            queue.append(self._connection, self._bound, orphans)
        return orphans

    def correct(self) -> None:
        """Correct the counts that are kept by differences, unless they have changed since the scan began."""
        given = {"embedded": self.embedded, "failed": self.failed}
        before = {"embedded_before": self._before[0], "failed_before": self._before[1]}
        self._connection.execute(self._bound.compose(_SQL["counted"]), given | before)

    def _kept_counts(self) -> tuple[int, int]:
        row = self._connection.execute(self._bound.compose(_SQL["counts"])).fetchone()
        return row or (0, 0)
