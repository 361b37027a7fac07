"""The target: one row a source row, written by COPY BINARY and one fenced upsert."""

import struct
from collections.abc import Sequence

import numpy as np
from psycopg import sql

from embedsync import queue
from embedsync.db import LOCK_CLASS, Connection, queries, quoted
from embedsync.errors import SchemaError
from embedsync.records import Fate, Key, Outcome, Vector
from embedsync.source import BoundSync, k_name, view_of

_SQL = queries("target")
_COPY_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_COPY_TRAILER = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_FLOAT4_OID = 700


def statements(bound: BoundSync) -> list[sql.Composed]:
    """The DDL of the target table and its view."""
    return [bound.compose(_SQL["create"]), bound.compose(_SQL["create_view"])]


def grants(connection: Connection, bound: BoundSync, worker_role: str | None) -> list[sql.Composed]:
    """What is still to be granted: who may read the source may read its embeddings; the daemon's role may do its work."""
    names = {"oid": bound.source_oid, "target": sql.Identifier(*bound.target_name).as_string()}
    roles = [row[0] for row in connection.execute(_SQL["readers"], names)]
    ddl = [bound.compose(_SQL["grant"], role=quoted(role) if role else sql.SQL("PUBLIC")) for role in sorted(roles, key=str)]
    if worker_role:
        ddl.append(bound.compose(_SQL["grant_worker"], role=quoted(worker_role)))
    return ddl


def removal(sync_name: str, target: tuple[str, str]) -> sql.Composed:
    """The DDL that takes view, target and queue away; it needs neither the source nor the model."""
    return sql.SQL(_SQL["drop"]).format(
        view=quoted(*view_of(target)), target=quoted(*target), queue=quoted("embedsync", f"queue_{sync_name}")
    )


def check_existing(connection: Connection, bound: BoundSync) -> None:
    """Raise SchemaError when a table of the target's name, or a view of its view's, is not one this sync can write to."""
    schema, table = bound.target_name
    found = connection.execute(_SQL["describe"], {"schema": schema, "table": table}).fetchone()
    remedy = 'Name another one: target = { table = "…" }.'
    if found is None:
        schema, view = bound.view_name
        if connection.execute(_SQL["describe"], {"schema": schema, "table": view}).fetchone():
            problem = "a table or view of that name exists and was not made for this sync"
            raise SchemaError(f"use the view of sync {bound.name!r},", f"{schema}.{view}", problem, remedy)
        return
    kind, ours = found
    subject = f"{schema}.{table}"
    if not ours or kind is None:
        problem = "a table of that name exists and was not made by embedsync"
        raise SchemaError(f"use the target of sync {bound.name!r},", subject, problem, remedy)
    wanted = bound.vector_type.as_string(None).replace('"', "").split(".")[-1]
    has = kind.split(".")[-1]
    if has != wanted:
        raise SchemaError(
            f"use the target of sync {bound.name!r},", subject,
            f"its embeddings are {has}, but model {bound.model.name} with type {bound.sync.target.type} gives {wanted}",
            f"Name another target, or `embedsync remove {bound.name}` first.",
        )  # fmt: skip


class TargetWriter:
    """Writes rows inside the caller's transaction. Holds a temporary table, so it belongs to one connection."""

    def __init__(self, connection: Connection, bound: BoundSync) -> None:
        self._connection = connection
        self._bound = bound
        self._element = bound.sync.target.type
        names = {
            "staging": quoted("pg_temp", f"embedsync_staging_{bound.name}"),
            "lock": sql.Literal(LOCK_CLASS),
            "key_params": sql.SQL(", ").join(
                sql.SQL("%({})s::text[]").format(k_name(i)) for i, _ in enumerate(bound.key_columns, 1)
            ),
        }
        self._queries = {
            name: bound.compose(_SQL[name], **names)
            for name in ("copy", "lock_shared", "lock_exclusive", "upsert", "touch", "read_again", "remove")
        }
        connection.execute(bound.compose(_SQL["staging"], **names), ())

    def write(self, outcomes: Sequence[Outcome], fingerprint: bytes) -> None:
        """Store, touch and remove rows. Of several outcomes of one key the one with the highest token counts."""
        latest: dict[Key, Outcome] = {}
        for outcome in outcomes:
            if outcome.key not in latest or latest[outcome.key].token < outcome.token:
                latest[outcome.key] = outcome
        by_fate: dict[Fate, list[Outcome]] = {fate: [] for fate in Fate}
        for outcome in latest.values():
            by_fate[outcome.fate].append(outcome)
        execute = self._connection.execute
        # A row can be deleted while its vector is under way. Writers look whether the source row exists;
        # a removal waits until no writer is under way, so one of the two always sees the other.
        execute(self._queries["lock_exclusive" if by_fate[Fate.REMOVE] else "lock_shared"])
        if by_fate[Fate.STORE]:
            # The same order everywhere, so that two workers cannot wait for each other.
            self._copy(sorted(by_fate[Fate.STORE], key=lambda outcome: outcome.key))
            execute(self._queries["upsert"], {"fingerprint": fingerprint})
        if by_fate[Fate.TOUCH]:
            params = self._params(by_fate[Fate.TOUCH])
            hashes = [outcome.content_hash for outcome in by_fate[Fate.TOUCH]]
            execute(self._queries["touch"], params | {"hashes": hashes, "fingerprint": fingerprint})
            execute(self._queries["read_again"], params)
        if by_fate[Fate.REMOVE]:
            execute(self._queries["remove"], self._params(by_fate[Fate.REMOVE]))

    def _params(self, outcomes: list[Outcome]) -> dict[str, object]:
        keys = self._bound.key_arrays([outcome.key for outcome in outcomes])
        return {**keys, "tokens": [outcome.token for outcome in outcomes]}

    def _copy(self, outcomes: list[Outcome]) -> None:
        with self._connection.cursor().copy(self._queries["copy"]) as copy:
            copy.write(_COPY_HEADER + b"".join(self._rows(outcomes)) + _COPY_TRAILER)

    def _rows(self, outcomes: list[Outcome]) -> list[bytes]:
        """Rows in COPY's binary form: packing with numpy is hundreds of times faster than vectors as text."""
        vectors = iter(pack([o.embedding for o in outcomes if o.embedding is not None], self._element))
        count = struct.pack("!h", len(self._bound.key_columns) + 4)
        rows = []
        for outcome in outcomes:
            rows.append(count)
            rows += [_field(part.encode()) for part in outcome.key]
            rows.append(_NULL if outcome.embedding is None else next(vectors))
            rows.append(_NULL if outcome.content_hash is None else _field(outcome.content_hash))
            rows.append(struct.pack("!iq", 8, outcome.token))
            rows.append(_NULL if outcome.error is None else _field(outcome.error.encode()))
        return rows


def _field(value: bytes) -> bytes:
    return struct.pack("!i", len(value)) + value


def pack(vectors: list[Vector], element: str) -> list[bytes]:
    """Each vector as one COPY BINARY field of type `vector`, `halfvec` or `real[]`, length first."""
    if not vectors:
        return []
    matrix = np.stack(vectors)
    count, dimension = matrix.shape
    if element == "real[]":  # one dimension, no NULLs, element type, length, lower bound; each element with its size
        head = struct.pack("!iiiii", 1, 0, _FLOAT4_OID, dimension, 1)
        sized = np.empty((count, dimension), dtype=[("size", ">i4"), ("value", ">f4")])
        sized["size"], sized["value"] = 4, matrix
        body = sized.tobytes()
    else:
        head = struct.pack("!hh", dimension, 0)
        body = matrix.astype(">f2" if element == "halfvec" else ">f4").tobytes()
    head = struct.pack("!i", len(head) + len(body) // count) + head
    width = len(body) // count
    return [head + body[i * width : (i + 1) * width] for i in range(count)]


def queue_orphans(connection: Connection, bound: BoundSync, after: Key | None, limit: int) -> Key | None:
    """Queue one page of target rows that have no source row; returns the page's last key, None at the end.

    By way of the queue, because the writer removes under its lock and its fence.
    """
    last, orphans = find_orphans(connection, bound, after, limit)
    if orphans:
        queue.append(connection, bound, orphans)
    return last


def find_orphans(connection: Connection, bound: BoundSync, after: Key | None, limit: int) -> tuple[Key | None, list[Key]]:
    """One page of target keys in order: the page's last key (None at the end) and those without a source row."""
    beyond = bound.compose("WHERE ({t_keys}) > ({after})") if after else sql.SQL("")
    params = {"limit": limit} | (bound.key_values(after) if after else {})
    found = connection.execute(bound.compose(_SQL["orphans"], beyond=beyond), params).fetchall()
    return (found[-1][:-1] if len(found) == limit else None), [row[:-1] for row in found if row[-1]]


def retry(connection: Connection, bound: BoundSync) -> int:
    """Queue every row whose text could not be encoded; returns how many."""
    return connection.execute(bound.compose(_SQL["retry"])).rowcount
