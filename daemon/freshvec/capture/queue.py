"""The change queue: append-only, read without claims, emptied entry by entry."""

from dataclasses import dataclass

import psycopg
from psycopg import sql

from freshvec.db import Session, queries, quoted, translated, verbatim
from freshvec.records import Change, Entry, Key
from freshvec.source.bound import BoundSync
from freshvec.source.locks import attempt, take_free

_SQL = queries("capture/queue")
# Reasons for a walk that make it another one: for lost partitions only orphans are looked for, and a queue
# that was full is given up for the walk.
ORPHANS = "a partition or child has gone"
QUEUE_FULL = "the queue is full"
REDEFINED = "what is noted of a change is another than before"
_LIVE_ENTRIES = 4096  # looked at in one read: hot rows have many entries each


def statements(bound: BoundSync) -> list[sql.Composed]:
    """The DDL of the sync's queue."""
    index = f"queue_{bound.name}_order"
    named = {"index": quoted(index), "index_name": sql.Literal(quoted("freshvec", index).as_string(None))}
    return [bound.compose(_SQL[name], **named) for name in ("create", "create_index", "identify")]


@dataclass(frozen=True)
class Unseen:
    """What a snapshot did not see, however much was there: changes of the transactions that ran then, and of
    those from the id `xid` on.
    """

    xid: str = "0"
    running: tuple[str, ...] = ()


def unseen_by(snapshot: str) -> Unseen:
    """Of a snapshot as Postgres prints it: `xmin:xmax:running`."""
    _, following, running = snapshot.split(":")
    return Unseen(following, tuple(running.split(",")) if running else ())


class QueueReader:
    """Reads one sync's queue. The table knows nothing of who reads, so a dead reader leaves nothing to clean
    up.

    A read that finds nothing proves that all its snapshot saw is handed out or answered: the next one looks
    only at what that snapshot did not see. So reads stay quick where an old snapshot or a long transaction
    keeps answered entries from being vacuumed.

    With `shards`, of 64 a bit for each, it reads changes of keys that are in these, as if there were no
    others. Which one a key is in is asked when it is read, so that the application's writes do not pay for
    it.
    """

    def __init__(self, connection: Session, bound: BoundSync, shards: int | None = None) -> None:
        self._connection = connection
        self._shards = shards
        own = _is_own(connection, bound, shards)
        self._read = bound.compose(_SQL["read"], and_is_own=own)
        self._rescans = bound.compose(_SQL["rescans"])
        self._empty = bound.compose(_SQL["is_empty"], and_is_own=own)
        self.has_more = False  # whether the last read left entries for another
        self.start_over()

    def start_over(self) -> None:
        """Read from the beginning: entries may have been hidden by others whose places they took."""
        self._unseen = {False: Unseen(), True: Unseen()}  # by small and by bulk changes
        # How far bulk changes were read, page by page, and what the first page did not see: beyond that
        # begins another round, or a transaction that ends late would wait for ever behind others.
        self._page: tuple[str, str] | None = None
        self._round = Unseen()

    def read(self, limit: int, handed_out: list[Entry], *, bulk: bool) -> tuple[int, list[Change]]:
        """Rows with entries that are not handed out yet, oldest first, and the fence drawn with them.

        The fence is 0 when there are none.
        """
        is_first = not (bulk and self._page)
        entries = limit if bulk else max(limit, _LIVE_ENTRIES)
        params = self._beginning(bulk) | {"handed_out": ";".join(handed_out)}
        params |= {"bulk": bulk, "entries": entries, "limit": limit, "shards": self._shards}
        rows = self._connection.execute(self._read, params, binary=True).fetchall()
        snapshot, fence, count, xid, changed_at = rows[0][:5]
        found = [Change(row[6:], tuple(row[5].split(";"))) for row in rows if row[5]]
        self.has_more = len(found) == limit or count == entries
        if bulk:
            if is_first:
                self._round = unseen_by(snapshot)
            is_round_over = not self.has_more or int(xid) >= int(self._round.xid)
            self._page = None if is_round_over else (xid, changed_at)
        if is_first and not found:
            self._unseen[bulk] = unseen_by(snapshot)
        elif not found:
            return self.read(limit, handed_out, bulk=bulk)
        return fence or 0, found

    def _beginning(self, bulk: bool) -> dict[str, object]:
        page = self._page if bulk else None
        if page is not None:
            return {"running": [], "xid": page[0], "changed_at": page[1]}
        unseen = self._unseen[bulk]
        return {"running": list(unseen.running), "xid": unseen.xid, "changed_at": "-infinity"}

    def rescans(self) -> list[tuple[str, str]]:
        """Ids and reasons of the requests to compare the whole table."""
        return [(number, reason) for number, reason in self._connection.execute(self._rescans)]

    def is_empty(self) -> bool:
        """Whether no change and no rescan waits, handed out or not. A yes proves what a read that finds
        nothing does.
        """
        small, large = self._unseen.values()
        params = {
            "xid": min(small.xid, large.xid, key=int),
            "running": [*small.running, *large.running],
            "shards": self._shards,
        }
        row = self._connection.execute(self._empty, params).fetchone()
        assert row is not None
        is_empty, snapshot = row
        if is_empty:
            self._unseen = dict.fromkeys(self._unseen, unseen_by(snapshot))
            self._page = None
        return bool(is_empty)


def _is_own(connection: Session, bound: BoundSync, shards: int | None) -> sql.Composable:
    """The condition for entries of these shards. Keys of types that have no hash are all in the first one."""
    if shards and not _has_hashes(connection, bound):
        shards = None if shards & 1 else 0
    if shards is None:
        return sql.SQL("")
    return bound.compose(_SQL["and_is_own"]) if shards else sql.SQL("AND false")


def _has_hashes(connection: Session, bound: BoundSync) -> bool:
    """Whether Postgres has a hash for the key's types; for a few, as money, it has none."""
    nulls = sql.SQL(", ").join(sql.SQL("NULL::{}").format(verbatim(column.type)) for column in bound.key)
    try:
        connection.execute(bound.compose(_SQL["has_hashes"], nulls=nulls), ())
    except psycopg.errors.UndefinedFunction:
        return False
    return True


def append(connection: Session, bound: BoundSync, keys: list[Key], *, bulk: bool = True) -> list[Entry]:
    """Ask for rows to be read again; gives the entries that do."""
    made = connection.execute(bound.compose(_SQL["append"]), bound.key_arrays(keys) | {"bulk": bulk})
    return [entry for (entry,) in made]


def delete(connection: Session, bound: BoundSync, entries: list[Entry]) -> list[float]:
    """Delete exactly these entries, in the caller's transaction; returns each one's lag in seconds.

    There are fewer where somebody else has deleted entries or written the table anew.
    """
    given = {"entries": ";".join(entries)}
    return [row[0] for row in connection.execute(bound.compose(_SQL["delete"]), given, binary=True)]


def discard(connection: Session, bound: BoundSync) -> None:
    """Delete every entry that is visible: in the transaction that begins a walk of the whole table."""
    connection.execute(bound.compose(_SQL["discard"]))


def discard_file(connection: Session, bound: BoundSync) -> None:
    """The same, and the queue is small again. What is deleted leaves its file as large, for as long as an old
    snapshot is open or nothing is vacuumed.

    Raises LockedError where somebody has the queue, DatabaseError where this role may not.
    """
    name = ("freshvec", f"queue_{bound.name}")
    emptying = translated("empty", f"the queue of sync {bound.name!r}")
    with emptying, attempt(connection, [name], "ACCESS EXCLUSIVE"):
        take_free(connection, [name], "ACCESS EXCLUSIVE")
        connection.execute(bound.compose(_SQL["discard_file"]))
        connection.execute(bound.compose(_SQL["note_file"]))
