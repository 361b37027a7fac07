"""A plan as one SQL script, for `psql -1`: it leads to the state that `apply` leads to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import psycopg
from psycopg import sql

from freshvec.capture.queue import ORPHANS, REDEFINED
from freshvec.db import LOCK_CLASS, MIGRATE_LOCK, WRITE_LOCK_CLASS, Connection, as_sent, queries
from freshvec.errors import SchemaError
from freshvec.schema import difference, identity, migrations
from freshvec.schema.plan import Plan
from freshvec.target import index

_SQL = queries("schema/script")
_APPLY = queries("schema/apply")
_MIGRATE = queries("schema/migrations")


def of_plans(connection: Connection, pending: Sequence[Path], plans: Sequence[Plan]) -> str:
    """The script of everything that is lacking; comments alone where nothing is.

    Raises SchemaError for what no single transaction can do.
    """
    quote = psycopg.ClientCursor(connection).mogrify
    parts = [_SQL["head"]]
    busy = [planned for planned in plans if _changes(planned)]
    if pending or busy:
        lock = quote(_SQL["lock"], {"class": LOCK_CLASS, "object": MIGRATE_LOCK})
        parts += [_SQL["begin"], _silent(lock)]
    if pending:
        parts.append(_MIGRATE["bootstrap"])
    for path in pending:
        parts += _migration(quote, path)
    for planned in plans:
        head = f"-- sync {planned.bound.name}: {difference.summary(planned)}"
        parts += [head, *_sync(connection, quote, planned)] if _changes(planned) else [head]
        parts += _index(connection, planned)
    return "\n\n".join(part if part.startswith("-- ") and "\n" not in part else f"{part};" for part in parts)


def _changes(planned: Plan) -> bool:
    return bool(planned.access) or not planned.is_applied


def _index(connection: Connection, planned: Plan) -> list[str]:
    """No transaction can build one: as a comment, for whoever is to run it."""
    seen = index.look(connection, planned.bound) if planned.applied is not None else None
    if planned.bound.sync.index is None or (
        seen and index.next_step(planned.bound, seen) is None and seen.is_filled
    ):
        return []
    statement = as_sent(index.building(planned.bound, seen.vectors if seen else 0), connection)
    return [_comment(f"once every row has its vector, alone, unless a worker may do it: {statement};")]


def _migration(quote: Any, path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8").strip().rstrip(";")
    if text.startswith(migrations.NO_TRANSACTION):
        problem = "it cannot run within a transaction"
        raise SchemaError(
            "write SQL for", f"migration {path.name}", problem, "Run `freshvec apply`, which can."
        )
    note = {"name": path.name, "sha256": migrations.checksum_of(path)}
    return [f"-- migration {path.name}", text, quote(_MIGRATE["note"], note)]


def _sync(connection: Connection, quote: Any, planned: Plan) -> list[str]:
    """As `apply` carries a plan out, step by step (schema/apply.py)."""
    bound = planned.bound
    given = {"class": WRITE_LOCK_CLASS, "name": bound.name}
    steps = [_silent(quote(_APPLY["lock"], given)), quote(_SQL["check"], _expected(connection, planned))]
    steps += [*planned.lacking, *planned.access]
    # Partitions that came are walked with all others: here nobody can look whether the queue has room.
    walk = planned.is_redefined or planned.difference.whole or bool(planned.difference.added)
    is_new = planned.is_redefined or planned.difference.is_binding
    noted = planned.noted("", trouble=None, walk=walk, is_new_binding=is_new)
    if planned.applied is None:
        steps.append(quote(_APPLY["insert_sync"], noted))
    if planned.is_redefined or planned.difference.whole:
        steps.append(_silent(as_sent(bound.compose(_APPLY["raise_fence"]), connection)))
    reasons = [REDEFINED] if planned.is_noted_otherwise else []
    reasons += [ORPHANS] if planned.difference.has_lost_members and not walk else []
    for reason in reasons:
        steps.append(_silent(quote(_APPLY["ask_for_walk"], {"name": bound.name, "reason": reason})))
    steps.append(quote(_APPLY["define_sync"], noted).partition("RETURNING")[0].rstrip())
    now = sql.SQL(_doubled(quote(identity.QUERY, identity.names(bound))))
    made = [*identity.OURS, *(["columns"] if planned.column else [])]
    kept = {"name": bound.name, "planned": planned.identity, "ours": made}
    steps.append(quote(sql.SQL(_SQL["note"]).format(identity=now), kept))
    return steps


def _expected(connection: Connection, planned: Plan) -> dict[str, Any]:
    """What is looked at again when the script runs: the table that was planned for, and its key's columns."""
    bound = planned.bound
    row = connection.execute(_SQL["columns"], {"oid": bound.source_oid}).fetchone()
    name = sql.Identifier(*bound.source_name).as_string(connection)
    return {"table": name, "oid": bound.source_oid, "columns": row and row[0]}


def _comment(text: str) -> str:
    """One line, whatever the names in it are: what follows another one would be run."""
    return f"-- {' '.join(text.splitlines())}"


def _silent(query: str) -> str:
    """A query that is run for what it does: psql shows no answer."""
    return f"DO $freshvec$ BEGIN\n  PERFORM {query.removeprefix('SELECT ')};\nEND $freshvec$"


def _doubled(text: str) -> Any:
    return cast(Any, text.replace("%", "%%"))
