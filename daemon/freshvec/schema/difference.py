"""What of a sync differs from what is applied: what was, what is declared, and what follows from it."""

import json
from dataclasses import dataclass
from typing import Any

from freshvec.schema.plan import Plan


@dataclass(frozen=True)
class Change:
    """One part of a definition: what it was, what it is to be. `was` is None where nothing was applied."""

    part: str
    was: str | None
    now: str


def changes(planned: Plan) -> list[Change]:
    """What is declared otherwise than it is applied; of a sync that was never applied, nothing."""
    if planned.applied is None or not planned.is_redefined:
        return []
    was, now = json.loads(planned.applied.definition or "{}"), json.loads(planned.definition)
    found = [_change(part, was, now) for part in _PARTS]
    return [change for change in found if change is not None and change.was != change.now] or [
        Change("definition", "of an earlier version", "of this version")
    ]


def reasons(planned: Plan) -> list[str]:
    """Why the table is compared again, where what is declared has not changed."""
    if planned.applied is None or planned.is_redefined:
        return []
    difference = planned.difference
    said = []
    if difference.whole:
        said.append("the table or its triggers changed without freshvec, so every row is compared")
    if difference.added:
        said.append(f"{len(difference.added)} tables of it came or changed, whose rows are compared")
    if difference.has_lost_members:
        said.append("tables of it went, so vectors without a row are looked for")
    return said


def summary(planned: Plan) -> str:
    """The state of the sync, in a few words."""
    if planned.applied is None:
        return "not applied yet"
    if planned.is_redefined:
        return "declared otherwise than it is applied"
    if planned.lacking or planned.difference.is_binding:
        return "applied, but not everything is as it was made"
    return "grants are to be changed" if planned.access else "applied as declared; nothing would change"


def _change(part: str, was: dict[str, Any], now: dict[str, Any]) -> Change | None:
    tell = _PARTS[part]
    before, after = tell(was), tell(now)
    if before == after:
        return None
    if part == "model":
        old, new = before.split(" ")[0], after.split(" ")[0]
        if old == new:  # told apart by its fingerprint
            return Change(part, f"{old}, as exported before", f"{new}, exported otherwise")
        return Change(part, old, new)
    if part == "table":
        return Change(part, f"the one with oid {before}", f"another one, with oid {after}")
    return Change(part, before, after)


def _text(definition: dict[str, Any]) -> str:
    declared = definition.get("declared", {})
    if declared.get("expression"):
        return str(declared["expression"])
    return ", ".join(declared["columns"]) if declared.get("columns") else "not noted"


def _key(definition: dict[str, Any]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind, _ in definition.get("key", []))


def _target(definition: dict[str, Any]) -> str:
    schema, table, kind, *column = definition.get("target", ["", "", ""])
    kind = kind.replace('"', "")
    return f"column {column[0]}, {kind}" if column else f"{schema}.{table}, {kind}"


def _passages(definition: dict[str, Any]) -> str:
    chunk = definition.get("declared", {}).get("chunk")
    if not chunk:
        return "whole texts"
    return f"of {chunk['tokens'] or 'as many as the model reads'} tokens, overlap {chunk['overlap']}"


_PARTS = {
    "text": _text,
    "where": lambda definition: str(definition.get("declared", {}).get("where") or "every row"),
    "model": lambda definition: str(definition.get("model", "")),
    "table": lambda definition: str(definition.get("table", "")),
    "key": _key,
    "target": _target,
    "passages": _passages,
}
