"""What is declared, beside what the database has: whatever is amiss there counts as stale."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.rows import dict_row

from freshvec.config import Sync
from freshvec.db import Connection, queries, translated
from freshvec.source.text import text_of
from freshvec.storage import split_name

_SQL = queries("health/declared")
NOT_APPLIED = "not applied"


@dataclass(frozen=True)
class Amiss:
    """What is wrong with a sync as a whole: its state in a few words, and a sentence with what is to be
    done."""

    state: str
    message: str


@dataclass(frozen=True)
class _Applied:
    """A sync as it was applied, and whether its tables are there."""

    definition: dict[str, Any]
    source: str
    has_source: bool
    is_same_source: bool
    is_now: str | None  # the name by now of the table that it was applied to
    target: str
    has_target: bool


def amiss(
    connection: Connection, declared: Sequence[Sync], fingerprints: Mapping[str, str] | None = None
) -> dict[str, Amiss]:
    """Syncs of which the database has another definition than the declared one, or none, or whose table or
    target is not there.

    `fingerprints` are those of the vectors of each sync whose model's files are here, in hexadecimal.
    """
    with translated("read", "freshvec.sync"):
        (is_made, encoding) = connection.execute(_SQL["server"]).fetchone() or (False, "")
        applied = _applied(connection) if is_made else {}
    found = {name: problem for name, one in applied.items() if (problem := _gone(name, one))}
    for sync in declared:
        advice = f"run `freshvec apply {sync.name}`, or a worker"
        if sync.name not in applied:
            found[sync.name] = Amiss(NOT_APPLIED, f"declared, but never applied: {advice}")
        elif sync.name not in found and not _is_as_declared(
            applied[sync.name], sync, encoding, fingerprints or {}
        ):
            found[sync.name] = Amiss("not as declared", f"declared otherwise than applied: {advice}")
    return found


def applied_names(connection: Connection) -> list[str]:
    """The syncs that the database knows."""
    with translated("read", "freshvec.sync"):
        (is_made, _) = connection.execute(_SQL["server"]).fetchone() or (False, "")
        return list(_applied(connection)) if is_made else []


def _applied(connection: Connection) -> dict[str, _Applied]:
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_SQL["applied"]).fetchall()
    return {
        row.pop("name"): _Applied(definition=json.loads(row.pop("definition") or "{}"), **row) for row in rows
    }


def _gone(name: str, applied: _Applied) -> Amiss | None:
    """What of the tables that a sync was applied to is not there any more."""
    if not applied.has_source:
        now = f"; the one that was kept is now {applied.is_now}" if applied.is_now else ""
        remedy = f"name another table in the file, or `freshvec remove {name}`"
        return Amiss("table missing", f"its table {applied.source} is not there{now}: {remedy}")
    if not applied.is_same_source:
        return Amiss(
            "another table",
            f"{applied.source} is another table than the one that was kept: a worker takes it up, or "
            f"`freshvec apply {name}`",
        )
    if not applied.has_target:
        return Amiss(
            "target missing",
            f"its target {applied.target} is not there: a worker makes it anew, or `freshvec apply {name}`",
        )
    return None


def _is_as_declared(applied: _Applied, sync: Sync, encoding: str, fingerprints: Mapping[str, str]) -> bool:
    """Whether table, text, model and target are those declared. Of a model whose files are not here only the
    name is known."""
    noted = applied.definition
    text = hashlib.sha256(text_of(sync, encoding).as_string(None).encode()).hexdigest()
    model, _, fingerprint = str(noted.get("model")).partition(" ")
    schema, table = sync.target_name
    target = [*noted.get("target", []), *[None] * 4]
    return (
        noted.get("text") == text
        and model == sync.model
        and fingerprints.get(sync.name, fingerprint) == fingerprint
        and _is_named(applied.source, split_name(sync.table))
        and table == target[1]
        and schema in (None, target[0])
        and _has_type(str(target[2]), sync)
        and sync.target.column == target[3]
    )


def _has_type(noted: str, sync: Sync) -> bool:
    """Whether a target's type is the declared one. The dimension is known where vectors are to be cut."""
    kind, dimensions = sync.target.type, sync.target.dimensions
    if kind == "real[]":
        return noted == kind
    return (f'"{kind}"({dimensions})' if dimensions else f'"{kind}"(') in noted


def _is_named(qualified: str, declared: tuple[str | None, str]) -> bool:
    """Whether a name as SQL writes it is the one declared, whose schema may have been left to the path."""
    schema, table = declared
    own_schema, own_table = split_name(qualified)
    return own_table == table and schema in (None, own_schema)
