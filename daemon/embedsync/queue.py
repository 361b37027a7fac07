"""The change queue: append-only, read without claims, emptied by exact sequence numbers."""

from collections.abc import Iterable

from psycopg import sql

from embedsync.db import Connection, queries, quoted
from embedsync.records import Change, Key, SourceRow
from embedsync.source import BoundSync

_SQL = queries("queue")


def statements(bound: BoundSync) -> list[sql.Composed]:
    """The DDL of the sync's queue."""
    index = quoted(f"queue_{bound.name}_live")
    return [bound.compose(_SQL["create"]), bound.compose(_SQL["create_index"], index=index)]


class QueueReader:
    """Reads one sync's queue. A reader remembers what it has handed out; the table knows nothing of it,
    so a reader that dies leaves nothing to clean up."""

    def __init__(self, connection: Connection, bound: BoundSync) -> None:
        self._connection = connection
        self._bound = bound
        self._live = bound.compose(_SQL["read_live"])
        self._bulk = bound.compose(_SQL["read_bulk"])
        self._rows = bound.compose(_SQL["read_rows"])
        self._rescans = bound.compose(_SQL["rescans"])
        self._empty = bound.compose(_SQL["is_empty"])
        self._in_flight: dict[bool, set[int]] = {False: set(), True: set()}  # of small and of bulk changes
        # Reads begin beyond the highest sequence number seen. A lower one can still be committed later,
        # so a read that finds the queue drained makes the next begin at 0 again.
        self._floor = {False: 0, True: 0}

    def read(self, limit: int, *, bulk: bool) -> tuple[int, list[Change]]:
        """Changes not yet handed out, oldest first, and the token drawn with them (0 when there are none)."""
        query, floor = self._bulk if bulk else self._live, self._floor[bulk]
        # Beyond the floor hardly any is in flight: the list the server compares with stays short.
        in_flight = [seq for seq in tuple(self._in_flight[bulk]) if seq > floor]  # a copy: the writer releases meanwhile
        params = {"floor": floor, "in_flight": in_flight, "limit": limit}
        found = self._connection.execute(query, params, binary=True).fetchall()
        if not found and floor:
            self._floor[bulk] = 0
            return self.read(limit, bulk=bulk)
        self._floor[bulk] = found[-1][0] if len(found) == limit else 0
        self._in_flight[bulk].update(row[0] for row in found)
        return (found[0][1] if found else 0), [Change(row[0], row[2:]) for row in found]

    def release(self, seqs: Iterable[int]) -> None:
        """These entries are deleted (or shall be handed out again)."""
        written = set(seqs)
        for in_flight in self._in_flight.values():
            in_flight -= written

    def read_rows(self, keys: list[Key], fingerprint: bytes, *, whole: bool = False) -> list[SourceRow]:
        """The source rows of `keys`; a key that is missing from the answer has no row any more.

        Texts come cut at `max_characters`, unless `whole` is asked for.
        """
        characters = None if whole else self._bound.max_characters
        params = self._bound.key_arrays(keys) | {"fingerprint": fingerprint, "characters": characters}
        return source_rows(self._connection.execute(self._rows, params, binary=True).fetchall())

    def rescans(self) -> list[int]:
        """Ids of the requests to compare the whole table."""
        return [row[0] for row in self._connection.execute(self._rescans)]

    def is_empty(self) -> bool:
        """Whether no change and no rescan waits, handed out or not."""
        row = self._connection.execute(self._empty).fetchone()
        return bool(row and row[0])


def source_rows(found: list[tuple[object, ...]]) -> list[SourceRow]:
    """Rows of `…key texts, hash, unchanged, text` as values."""
    return [
        SourceRow(row[:-3], text=row[-1], content_hash=row[-3], unchanged=row[-2])  # type: ignore[arg-type]
        for row in found
    ]


def append(connection: Connection, bound: BoundSync, keys: list[Key]) -> None:
    """Ask for rows to be read again."""
    connection.execute(bound.compose(_SQL["append"]), bound.key_arrays(keys))


def delete(connection: Connection, bound: BoundSync, seqs: list[int]) -> list[float]:
    """Delete exactly these entries, in the caller's transaction; returns each one's lag in seconds."""
    return [row[0] for row in connection.execute(bound.compose(_SQL["delete"]), {"seqs": seqs})]
