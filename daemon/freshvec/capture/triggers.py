"""Capture: the triggers that note which rows changed.

An ordinary table has statement triggers, cheap in bulk, for ordinary sessions, and a row trigger for those
that replicate, where Postgres fires no others. A table with partitions, children or a parent has row triggers
alone: a statement on one table of such a family may change rows of another, and a MERGE that moves a row to
another partition shows statement triggers nothing. Postgres copies a row trigger of a partitioned table to
every partition, those to come as well.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from freshvec.db import BELL_LOCK_CLASS, Connection, queries, quoted
from freshvec.source.bound import BoundSync
from freshvec.source.locks import Mode

_SQL = queries("capture/triggers")
# As pg_trigger has it.
_ENABLE = {"O": "enable_origin", "R": "enable_replica", "A": "enable_always"}
# The locks that Postgres takes for it.
_MAKE: Mode = "SHARE ROW EXCLUSIVE"
_DROP: Mode = "ACCESS EXCLUSIVE"
_FUNCTIONS = ("is_intact", "was_intact", "function", "row_function", "revoke")
_BOOLEAN = 16  # the type's oid
_ROWS = ("n", "o", "new", "old")  # of transition tables, and NEW and OLD
_TOAST_CHUNK_IDS = 170000  # the version that can tell whether an out-of-line value kept its place


@dataclass(frozen=True)
class Trigger:
    """A trigger as it should be, or as it is.

    `enabled` is pg_trigger's: Origin, Replica or Always. `version` is an argument of the trigger that tells
    how it was made.
    """

    relation_oid: int
    relation: tuple[str, str]
    name: str
    enabled: str
    event: str = ""
    is_copy: bool = False  # made by Postgres for a partition
    version: str = ""

    @property
    def is_row(self) -> bool:
        return self.name.endswith("_row")


def wanted(bound: BoundSync) -> list[Trigger]:
    """Every trigger that the sync needs, partitions' copies included."""
    triggers = []
    for place, relation in enumerate(bound.relations):

        def trigger(event: str, enabled: str, is_copy: bool = False, relation: Any = relation) -> None:
            name = f"freshvec_{bound.name}_{event}"
            version = hashlib.sha256(_SQL[event].encode()).hexdigest()[:8]
            triggers.append(Trigger(relation.oid, relation.name, name, enabled, event, is_copy, version))

        if bound.is_family:
            trigger("row", "A", is_copy=place > 0 and bound.relations[0].is_partitioned)
        else:
            for event in ("insert", "update", "delete"):
                trigger(event, "O")
            trigger("row", "R")
        trigger("truncate", "A")
    return triggers


def installed(connection: Connection, name: str) -> list[Trigger]:
    """The triggers of the sync called `name`, on whatever tables they are by now."""
    return [
        Trigger(oid, (schema, table), trigger, enabled, "", is_copy, version)
        for oid, trigger, enabled, schema, table, is_copy, version in connection.execute(
            _SQL["installed"], {"name": name}
        )
    ]


@dataclass(frozen=True)
class Change:
    """DDL on one table, and the lock that it takes; if it is about a row trigger, of all partitions, too."""

    oid: int
    relation: tuple[str, str]
    mode: Mode
    is_of_rows: bool
    statements: tuple[sql.Composed, ...]


def function_statements(bound: BoundSync) -> list[sql.Composed]:
    """The DDL of the functions that triggers call."""
    parts = _parts(bound)
    return [bound.compose(_SQL[name], **parts) for name in _FUNCTIONS]


def mending(connection: Connection, bound: BoundSync) -> list[Change]:
    """What makes the triggers as they should be, where they are not."""
    there = {(trigger.relation_oid, trigger.name): trigger for trigger in installed(connection, bound.name)}
    ddl = []
    for trigger in wanted(bound):
        found = there.get((trigger.relation_oid, trigger.name))
        if (found is None or found.version != trigger.version) and not trigger.is_copy:
            ddl.append((trigger, _create(bound, trigger)))
        elif found is not None and found.enabled != trigger.enabled:
            ddl.append((trigger, [_enable(trigger)]))
    return _grouped(ddl, _MAKE)


def strays(connection: Connection, bound: BoundSync) -> list[Change]:
    """What drops triggers on a table that is no longer the sync's, or of a kind that it needs no more."""
    needed = {(trigger.relation_oid, trigger.name) for trigger in wanted(bound)}
    found = [
        trigger
        for trigger in installed(connection, bound.name)
        if (trigger.relation_oid, trigger.name) not in needed and not trigger.is_copy
    ]
    return _grouped([(trigger, [_drop(trigger)]) for trigger in found], _DROP)


def removal(connection: Connection, name: str) -> list[Change]:
    """What drops every trigger of the sync called `name`."""
    found = [trigger for trigger in installed(connection, name) if not trigger.is_copy]
    return _grouped([(trigger, [_drop(trigger)]) for trigger in found], _DROP)


def functions_removal(name: str) -> sql.Composed:
    """The DDL that takes the functions away, once no trigger calls them."""
    functions = {
        function: quoted("freshvec", f"{function}_{name}")
        for function in ("capture", "capture_row", "is_intact", "was_intact")
    }
    return sql.SQL(_SQL["drop_functions"]).format(**functions)


def _grouped(ddl: list[tuple[Trigger, list[sql.Composed]]], mode: Mode) -> list[Change]:
    """One change per table."""
    triggers: dict[tuple[int, tuple[str, str]], list[Trigger]] = {}
    statements: dict[tuple[int, tuple[str, str]], list[sql.Composed]] = {}
    for trigger, made in ddl:
        place = trigger.relation_oid, trigger.relation
        triggers.setdefault(place, []).append(trigger)
        statements.setdefault(place, []).extend(made)
    return [
        Change(*place, mode, any(trigger.is_row for trigger in triggers[place]), tuple(made))
        for place, made in statements.items()
    ]


def _create(bound: BoundSync, trigger: Trigger) -> list[sql.Composed]:
    names: dict[str, sql.Composable] = {
        "trigger": quoted(trigger.name),
        "relation": quoted(*trigger.relation),
        "version": sql.Literal(trigger.version),
    }
    made = bound.compose(_SQL[trigger.event], **names)
    return [made] if trigger.enabled == "O" else [made, _enable(trigger)]


def _enable(trigger: Trigger) -> sql.Composed:
    names = {"trigger": quoted(trigger.name), "relation": quoted(*trigger.relation)}
    return sql.SQL(_SQL[_ENABLE[trigger.enabled]]).format(**names)


def _drop(trigger: Trigger) -> sql.Composed:
    names = {"trigger": quoted(trigger.name), "relation": quoted(*trigger.relation)}
    return sql.SQL(_SQL["drop_trigger"]).format(**names)


def _parts(bound: BoundSync) -> dict[str, sql.Composable]:
    """The fragments of the functions: keys and comparisons of transition rows (n, o) and of NEW and OLD."""
    n, o, new, old = (_keys_of(bound, alias) for alias in ("n", "o", "NEW", "OLD"))
    comma = sql.SQL(", ")
    both = [sql.SQL("coalesce({}, {})").format(*pair) for pair in zip(n, o, strict=True)]
    children = [] if bound.relations[0].is_partitioned else bound.relations[1:]
    return _looks(bound) | {
        "children": _rows("{}::regclass", [(str(child.oid),) for child in children] or [("0",)]),
        "n_keys": comma.join(n),
        "o_keys": comma.join(o),
        "new_keys": comma.join(new),
        "old_keys": comma.join(old),
        "n_or_o_keys": comma.join(both),
        **{f"{name}_has_key": _is_there(keys) for name, keys in zip(_ROWS, (n, o, new, old), strict=True)},
        "n_key": n[0],
        "o_key": o[0],
        "n_is_o": bound.same(n, o),
        "new_is_old": bound.same(new, old),
        "changed": _changed(bound, "n", "o"),
        "new_changed": _changed(bound, "NEW", "OLD"),
        "bell_class": sql.Literal(BELL_LOCK_CLASS),
        "noted": _parameter(bound, "noted"),
    }


def _looks(bound: BoundSync) -> dict[str, sql.Composable]:
    """The fragments of how both functions begin: whether a change can be noted."""
    columns = bound.relied_on
    queued = [(f"k{place}", column.type_oid, column.modifier) for place, column in enumerate(bound.key, 1)]
    is_partitioned = bound.relations[0].is_partitioned
    parts = {
        "name": sql.SQL(bound.name),
        "asked": _parameter(bound, "asked"),
        "layout": sql.Literal(_layout(bound)),
        "queue_count": sql.Literal(3 + len(bound.key)),
        "noted_count": sql.Literal(1 + len(bound.key)),
        "queue_columns": _columns([("bulk", _BOOLEAN, -1), *queued]),
        "queue_bytes": sql.Literal(bound.sync.queue_bytes),
        "column_count": sql.Literal(len(columns)),
        "column_names": _names(list(columns)),
        "key_names": _names(list(bound.key_columns)),
        "key_columns": _columns([(column.name, column.type_oid, column.modifier) for column in bound.key]),
        "row_function": sql.Literal(quoted("freshvec", f"capture_row_{bound.name}").as_string(None)),
        "source_name": sql.Literal(quoted(*bound.source_name).as_string(None)),
        "source_schema": sql.Literal(quoted(bound.source_name[0]).as_string(None)),
        # Partitions have their columns from the table itself; children may be disowned and then altered.
        "is_of_source": sql.SQL("IS NOT NULL" if is_partitioned else "= TG_RELID"),
    }
    own = [column for column in bound.key if column.equality[0] != "pg_catalog"]
    operators = {(column.equality_oid, *column.equality) for column in own}
    parts["operators"] = _rows("({}::oid, {}, {})", sorted(operators))
    parts["operator_count"] = sql.Literal(len(operators))
    parts["and_same_operators"] = bound.compose(_SQL["and_same_operators"] if operators else "", **parts)
    may_compare = [
        bound.compose(_SQL["and_may_compare"], function=sql.Literal(function))
        for function in sorted({column.comparing_oid for column in own})
    ]
    parts["and_may_compare"] = sql.SQL(" ").join(may_compare)
    parts["and_no_others"] = bound.compose(_SQL["and_no_others"] if is_partitioned else "", **parts)
    parts |= {name: bound.compose(_SQL[name], **parts) for name in ("found_queue", "is_source", "may_ring")}
    return parts | {"refuses": bound.compose(_SQL["refuses"], **parts)}


def _layout(bound: BoundSync) -> str:
    """What the functions take key and table for: of two that know other keys, or name other columns, each has
    another one."""
    key = [(column.name, column.type_oid, column.modifier, column.equality) for column in bound.key]
    return hashlib.sha256(repr((key, bound.relied_on)).encode()).hexdigest()[:8]


def _parameter(bound: BoundSync, what: str) -> sql.Literal:
    """The name of what a transaction remembers of a sync. It bears no dot, which an edition's name has."""
    return sql.Literal(f"freshvec.{what}_{bound.name.replace('.', '$')}")


def _keys_of(bound: BoundSync, alias: str) -> list[sql.Composable]:
    """Key columns of a row of a transition table, or of NEW or OLD, which are names of PL/pgSQL's."""
    return [_column(alias, name) for name in bound.key_columns]


def _is_there(keys: list[sql.Composable]) -> sql.Composable:
    """Whether no part of a key is NULL; one of a composite type, whose fields may be, is not."""
    return sql.SQL(" AND ").join(sql.SQL("{} IS DISTINCT FROM NULL").format(key) for key in keys)


def _column(alias: str, name: str) -> sql.Composable:
    return sql.SQL("{}.{}").format(sql.SQL(alias), quoted(name))


def _changed(bound: BoundSync, new: str, old: str) -> sql.Composable:
    """Whether a watched column differs in what is stored. A superfluous entry costs a hash; a missed one is
    forbidden.

    An unchanged value that lies out of line is not fetched where Postgres can tell that it kept its place.
    The column of the vectors is watched in all transactions but those that write vectors of this sync.
    """
    differs = "record_image_ne(ROW({0}), ROW({1}))"
    if bound.server_version >= _TOAST_CHUNK_IDS:
        differs = (
            "CASE WHEN pg_column_toast_chunk_id({0}) = pg_column_toast_chunk_id({1}) THEN false"
            " ELSE record_image_ne(ROW({0}), ROW({1})) END"
        )
    pairs: list[sql.Composable] = [
        sql.SQL(differs).format(_column(new, name), _column(old, name)) for name in bound.watched
    ]
    if (own := bound.sync.target.column) is not None:
        by_others = bound.compose("current_setting('freshvec.writes', true) IS DISTINCT FROM {sync_name}")
        changed = sql.SQL(differs).format(_column(new, own), _column(old, own))
        pairs.append(sql.SQL("({} AND {})").format(by_others, changed))
    return sql.SQL(" OR ").join(pairs) if pairs else sql.SQL("false")


def _columns(columns: list[tuple[str, int, int]]) -> sql.Composable:
    """Names, types and modifiers, as they are compared with those in the catalogue."""
    return _rows("({}, {}::oid, {})", columns)


def _rows(pattern: Any, rows: Sequence[tuple[Any, ...]]) -> sql.Composable:
    """Each row's values as literals, in `pattern`."""
    return sql.SQL(", ").join(sql.SQL(pattern).format(*map(sql.Literal, row)) for row in rows)


def _names(names: list[str]) -> sql.Composable:
    literals = sql.SQL(", ").join(sql.Literal(name) for name in names)
    return sql.SQL("ARRAY[{}]").format(literals)
