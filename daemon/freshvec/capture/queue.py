"""The change queue: append-only, read without claims, emptied by exact sequence numbers."""

from psycopg import sql

from freshvec.db import Connection, queries, quoted
from freshvec.records import Change, Key
from freshvec.source.bound import BoundSync

_SQL = queries("capture/queue")


def statements(bound: BoundSync) -> list[sql.Composed]:
    """The DDL of the sync's queue."""
    index = quoted(f"queue_{bound.name}_live")
    return [bound.compose(_SQL["create"]), bound.compose(_SQL["create_index"], index=index)]


class QueueReader:
    """Reads one sync's queue. The table knows nothing of who reads, so a dead reader leaves nothing to clean up."""

    def __init__(self, connection: Connection, bound: BoundSync) -> None:
        self._connection = connection
        self._live = bound.compose(_SQL["read_live"])
        self._bulk = bound.compose(_SQL["read_bulk"])
        self._rescans = bound.compose(_SQL["rescans"])
        self._empty = bound.compose(_SQL["is_empty"])
        # Reads begin beyond the highest sequence number seen. A lower one can still be committed later,
        # so a read that finds the queue drained makes the next begin at 0 again.
        self._floor = {False: 0, True: 0}

    def read(self, limit: int, handed_out: list[int], *, bulk: bool) -> tuple[int, list[Change]]:
        """Changes that are not handed out yet, oldest first, and the fence drawn with them (0 when there are none)."""
        query, floor = self._bulk if bulk else self._live, self._floor[bulk]
        # Beyond the floor hardly any is in flight: the list the server compares with stays short.
        in_flight = [seq for seq in handed_out if seq > floor]
        params = {"floor": floor, "in_flight": in_flight, "limit": limit}
        found = self._connection.execute(query, params, binary=True).fetchall()
        if not found and floor:
            self._floor[bulk] = 0
            return self.read(limit, handed_out, bulk=bulk)
        self._floor[bulk] = found[-1][0] if len(found) == limit else 0
        return (found[0][1] if found else 0), [Change(row[0], row[2:]) for row in found]

    def rescans(self) -> list[int]:
        """Ids of the requests to compare the whole table."""
        return [row[0] for row in self._connection.execute(self._rescans)]

    def is_empty(self) -> bool:
        """Whether no change and no rescan waits, handed out or not."""
        row = self._connection.execute(self._empty).fetchone()
        return bool(row and row[0])


def append(connection: Connection, bound: BoundSync, keys: list[Key]) -> None:
    """Ask for rows to be read again."""
    connection.execute(bound.compose(_SQL["append"]), bound.key_arrays(keys))


def delete(connection: Connection, bound: BoundSync, seqs: list[int]) -> list[float]:
    """Delete exactly these entries, in the caller's transaction; returns each one's lag in seconds."""
    return [row[0] for row in connection.execute(bound.compose(_SQL["delete"]), {"seqs": seqs})]
