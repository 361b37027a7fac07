"""Transactions that write to the source: which of those of one moment are still open.

Whoever changes a row holds its table's ROW EXCLUSIVE lock until the transaction is over, prepared ones as
well. Who takes that lock sees what was committed before, triggers and their functions included; who has it
already may go on with what was there, however late the transaction's id is drawn. So the locks are asked, not
the ids.
"""

from freshvec.db import Session, queries
from freshvec.source.bound import BoundSync

_SQL = queries("source/writers")


class Writers:
    """The transactions that have written, or write, to the source when this is made."""

    def __init__(self, connection: Session, bound: BoundSync) -> None:
        self._connection = connection
        self._tables = [relation.oid for relation in bound.relations]
        self._open = self._now()

    @property
    def pids(self) -> list[int]:
        """The sessions of those that were open at the last look; a prepared one has none."""
        return sorted(pid for pid in self._open.values() if pid is not None)

    def are_over(self) -> bool:
        """Whether none of them is open any more."""
        now = self._now() if self._open else {}
        self._open = {number: now[number] for number in self._open.keys() & now.keys()}
        return not self._open

    def _now(self) -> dict[str, int | None]:
        return dict(self._connection.execute(_SQL["open"], {"tables": self._tables}).fetchall())
