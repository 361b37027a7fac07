"""Identity: what a sync is bound to, as the catalogue has it, in one cheap query; and what a difference
means."""

import json
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from freshvec.db import Connection, queries
from freshvec.source.bound import BoundSync

_SQL = queries("schema/identity")
QUERY = _SQL["identity"]
_WITH_GENERATION = f"SELECT ({QUERY}), ({_SQL['generation']})"
_WITH_NOTED = f"SELECT ({QUERY}), generation, identity FROM freshvec.sync WHERE name = %(name)s"
OURS = ("triggers", "target", "target_files", "guards", "queue", "queue_file", "view")
_PARTIAL = ("members", "triggers")  # a partition that came or went changes these two


@dataclass(frozen=True)
class Difference:
    """What changed between two identities.

    `whole`: changes may have been missed anywhere, so everything is walked. `added` and `has_lost_members`:
    tables of the family that came, or that changes may have been missed of, and that went; the rest is as it
    was. `access`: who may read the source.
    """

    whole: bool
    added: tuple[int, ...]
    has_lost_members: bool
    access: bool

    @property
    def is_binding(self) -> bool:
        return self.whole or bool(self.added) or self.has_lost_members


SAME = Difference(whole=False, added=(), has_lost_members=False, access=False)


def read(connection: Connection, bound: BoundSync) -> tuple[str, int | None]:
    """The identity, and the sync's generation, None while it is not applied."""
    row = connection.execute(_WITH_GENERATION, names(bound)).fetchone()
    assert row is not None
    return row[0], row[1]


def read_alone(connection: Connection, bound: BoundSync) -> str:
    """The identity, also where the freshvec schema has not been made."""
    row = connection.execute(QUERY, names(bound)).fetchone()
    assert row is not None
    return str(row[0])


def names(bound: BoundSync) -> dict[str, Any]:
    """The parameters of `QUERY`."""
    schema, table = bound.source_name
    depends = bound.depends
    return {
        "schema": schema,
        "table": table,
        "name": bound.name,
        "columns": None if depends.is_of_whole_row else sorted({*bound.relied_on, *depends.read}),
        "functions": list(depends.functions),
        "operators": list(depends.operators),
        "types": list(depends.types),
        "target": _text(*bound.target_name),
        "tables": [_text(*table) for table in bound.tables],
        "queue": _text("freshvec", f"queue_{bound.name}"),
        "view": _text(*bound.view_name) if bound.is_shown else None,
    }


def generation(connection: Connection, name: str) -> int | None:
    """The generation of an applied sync."""
    row = connection.execute(_SQL["generation"], {"name": name}).fetchone()
    return None if row is None else row[0]


def is_as_noted(connection: Connection, bound: BoundSync) -> bool:
    """Whether all is still as it is noted, and the generation that of `bound`."""
    row = connection.execute(_WITH_NOTED, names(bound)).fetchone()
    return row is not None and row[1] == bound.generation and is_same(row[0], row[2])


def noted(planned: str, now: str, *, has_made: bool) -> str:
    """The identity to note after a plan was carried out: of our objects what is there now, of the rest what
    was planned.

    So whatever the application changed meanwhile is a difference at the next look.
    """
    if not has_made or not planned:
        return planned or now
    made = json.loads(now)
    return json.dumps(json.loads(planned) | {name: made[name] for name in OURS})


def is_same(one: str, other: str) -> bool:
    """Whether two identities, of which either may not be noted yet, are one."""
    return one == other or bool(one and other and json.loads(one) == json.loads(other))


def difference(before: str, now: str) -> Difference:
    """What is different. An identity that was never noted differs wholly."""
    if not before:
        return Difference(whole=True, added=(), has_lost_members=False, access=True)
    old, new = json.loads(before), json.loads(now)
    access = old["access"] != new["access"] or old["security"] != new["security"]
    others = [name for name in new if name not in (*_PARTIAL, "access", "security")]
    old_members, new_members = _members(old), _members(new)
    kept = old_members.keys() & new_members.keys()
    # Of a member that has another file or other triggers than it had, changes may have been missed; of it
    # alone, unless it is the source itself. Where that is so of most of them, a walk is cheaper than to queue
    # their rows.
    missed = {oid for oid in kept if old_members[oid] != new_members[oid]}
    is_whole = str(new["source"]) in missed or 2 * len(missed) > len(kept)
    same = all(old.get(name) == new[name] for name in others) and not is_whole
    added = (new_members.keys() - old_members.keys()) | missed
    lost = len(kept) < len(old_members) or bool(missed)
    return Difference(
        whole=not same,
        added=tuple(sorted(map(int, added))) if same else (),
        has_lost_members=same and lost,
        access=access,
    )


def _members(identity: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """File and triggers of each table of the family, by oid."""
    triggers = sorted((identity["triggers"] or {}).items())
    return {
        oid: (file, *(trigger for trigger in triggers if trigger[0].split(" ", 1)[0] == oid))
        for oid, file in (identity["members"] or {}).items()
    }


def _text(*names: str) -> str:
    return sql.Identifier(*names).as_string()
