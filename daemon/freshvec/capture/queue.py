"""The change queue: append-only, read without claims, emptied by exact sequence numbers."""

from psycopg import sql

from freshvec.db import Session, queries, quoted
from freshvec.records import Change, Key
from freshvec.source.bound import BoundSync

_SQL = queries("capture/queue")
# Reasons for a walk that make it another one: for lost partitions only orphans are looked for, and a queue
# that was full is given up for the walk.
ORPHANS = "a partition or child has gone"
QUEUE_FULL = "the queue is full"
_LIVE_ENTRIES = 4096  # looked at in one read: hot rows have many entries each


def statements(bound: BoundSync) -> list[sql.Composed]:
    """The DDL of the sync's queue."""
    index = f"queue_{bound.name}_live"
    named = {"index": quoted(index), "index_name": sql.Literal(quoted("freshvec", index).as_string(None))}
    return [bound.compose(_SQL["create"]), bound.compose(_SQL["create_index"], **named)]


class QueueReader:
    """Reads one sync's queue. The table knows nothing of who reads, so a dead reader leaves nothing to clean
    up.

    Sequence order is not commit order: a lower number may still be committed. So reads begin at a floor below
    which every number is decided, and it moves by snapshots: once every transaction that ran when a number
    was the highest has ended, and a read after that found nothing more, all numbers up to it are deleted or
    handed out. A floor that moves keeps reads quick where an old snapshot keeps consumed entries from being
    vacuumed.
    """

    def __init__(self, connection: Session, bound: BoundSync) -> None:
        self._connection = connection
        self._live = bound.compose(_SQL["read_live"])
        self._bulk = bound.compose(_SQL["read_bulk"])
        self._rescans = bound.compose(_SQL["rescans"])
        self._empty = bound.compose(_SQL["is_empty"])
        self._horizon = bound.compose(_SQL["horizon"])
        self._floor = 0
        self._mark: tuple[int, int] | None = (
            None  # the highest number at a snapshot, and the first id after it
        )
        self._is_decided = False  # all transactions before the mark have ended
        self._is_drained = {
            False: False,
            True: False,
        }  # small and bulk changes, since the floor was last looked at
        self._beyond = 0  # where the next read of bulk changes begins, until one finds nothing

    def read(self, limit: int, handed_out: list[int], *, bulk: bool) -> tuple[int, list[Change]]:
        """Rows with entries that are not handed out yet, oldest first, and the fence drawn with them.

        The fence is 0 when there are none.
        """
        floor = max(self._floor, self._beyond) if bulk else self._floor
        params = {
            "floor": floor,
            # Beyond the floor hardly any is in flight: the list the server compares with stays short.
            "in_flight": [entry for entry in handed_out if entry > floor],
            "entries": limit if bulk else max(limit, _LIVE_ENTRIES),
            "limit": limit,
        }
        query = self._bulk if bulk else self._live
        found = self._connection.execute(query, params, binary=True).fetchall()
        if bulk:
            if not found and self._beyond:
                self._beyond = 0
                return self.read(limit, handed_out, bulk=True)
            self._beyond = found[0][2] if found and found[0][1] == limit else 0
        self._is_drained[bulk] = not found
        return (found[0][0] if found else 0), [Change(row[4:], tuple(row[3])) for row in found]

    def settle(self) -> None:
        """Move the floor, if that is proven: once reads of small and of bulk changes have found nothing
        more."""
        if not all(self._is_drained.values()):
            return
        self._is_drained = {False: False, True: False}
        if self._mark and self._is_decided:
            self._floor, self._mark = self._mark[0], None
        following, oldest, highest = self._connection.execute(self._horizon).fetchone() or (0, 0, 0)
        if self._mark is None:
            self._mark, self._is_decided = (max(highest, self._floor), following), False
        elif oldest >= self._mark[1]:
            self._is_decided = True

    def rescans(self) -> list[tuple[int, str]]:
        """Ids and reasons of the requests to compare the whole table."""
        return [(number, reason) for number, reason in self._connection.execute(self._rescans)]

    def is_empty(self) -> bool:
        """Whether no change and no rescan waits, handed out or not."""
        row = self._connection.execute(self._empty, {"floor": self._floor}).fetchone()
        return bool(row and row[0])


def append(connection: Session, bound: BoundSync, keys: list[Key], *, bulk: bool = True) -> None:
    """Ask for rows to be read again."""
    connection.execute(bound.compose(_SQL["append"]), bound.key_arrays(keys) | {"bulk": bulk})


def delete(connection: Session, bound: BoundSync, entries: list[int]) -> list[float]:
    """Delete exactly these entries, in the caller's transaction; returns each one's lag in seconds."""
    return [row[0] for row in connection.execute(bound.compose(_SQL["delete"]), {"seqs": entries})]


def discard(connection: Session, bound: BoundSync) -> None:
    """Delete every entry that is visible: in the transaction that begins a walk of the whole table."""
    connection.execute(bound.compose(_SQL["discard"]))
