"""What a text depends on: the columns whose change must be noticed, and whether it is a function of the row
alone.

A text that also depends on the time, on another table or on chance would change without any trigger seeing
it, so it is refused. What depends on the session's settings only is fine: our sessions pin them (db.py).
"""

import re
from dataclasses import dataclass, replace

from psycopg import sql

from freshvec.config import Sync
from freshvec.db import Connection, queries
from freshvec.errors import SchemaError

_SQL = queries("source/expression")
_FIRST_OWN_OID = 16384  # below it is what every database has

# Functions that Postgres calls STABLE because they depend on settings such as the time zone, and on nothing
# else.
_BY_SETTINGS_ALONE = frozenset(
    [
        "concat",
        "concat_ws",
        "format",
        "to_char",
        "to_number",
        "to_date",
        "to_timestamp",
        "array_to_string",
        "textanycat",
        "anytextcat",
        "quote_literal",
        "quote_nullable",
        "to_json",
        "to_jsonb",
        "row_to_json",
        "array_to_json",
        "json_build_array",
        "json_build_object",
        "jsonb_build_array",
        "jsonb_build_object",
        "to_tsvector",
        "date",
        "timestamp",
        "timestamptz",
        "time",
        "timetz",
        "date_trunc",
        "date_part",
        "extract",
        "timestamptz_pl_interval",
        "timestamptz_mi_interval",
        "interval_pl_timestamptz",
        "make_timestamptz",
        "date_eq_timestamptz",
        "date_ne_timestamptz",
        "date_lt_timestamptz",
        "date_le_timestamptz",
        "date_gt_timestamptz",
        "date_ge_timestamptz",
        "timestamptz_eq_date",
        "timestamptz_ne_date",
        "timestamptz_lt_date",
        "timestamptz_le_date",
        "timestamptz_gt_date",
        "timestamptz_ge_date",
        "timestamp_eq_timestamptz",
        "timestamp_ne_timestamptz",
        "timestamp_lt_timestamptz",
        "timestamp_le_timestamptz",
        "timestamp_gt_timestamptz",
        "timestamp_ge_timestamptz",
        "timestamptz_eq_timestamp",
        "timestamptz_ne_timestamp",
        "timestamptz_lt_timestamp",
        "timestamptz_le_timestamp",
        "timestamptz_gt_timestamp",
        "timestamptz_ge_timestamp",
        "array_out",
        "record_out",
    ]
)
_FORBIDDEN = {
    "AGGREF": "it has an aggregate function, which is over many rows",
    "WINDOWFUNC": "it has a window function, which is over many rows",
    "GROUPINGFUNC": "it has a grouping function, which is over many rows",
    "SUBLINK": "it has a subquery, and no trigger sees a change of what that reads",
    "SQLVALUEFUNCTION": "it depends on the current time or user",
    "NEXTVALUEEXPR": "it draws from a sequence",
}
# Types of which a text may say 'now' or 'today': date, time, timestamp, timestamptz, timetz; then arrays of
# them, and ranges.
_CLOCK_TYPES = {1082, 1083, 1114, 1184, 1266}
_CLOCK_TYPES |= {1182, 1183, 1115, 1185, 1270, 3908, 3910, 3912, 4533, 4534, 4535}
# A cast by way of a text (COERCEVIAIO) ends so, and no other node does: one may stand within another.
_CASTS_BY_TEXT = re.compile(r":resulttype (\d+) :resultcollid ")
_WORDS_OF_THE_CLOCK = re.compile(r"'\s*(now|today|tomorrow|yesterday|allballs)\s*'", re.IGNORECASE)
_REMEDY = "Write an expression over the row's own columns, of IMMUTABLE functions."


@dataclass(frozen=True)
class Dependence:
    """What a text is made of: `read` are the columns it names, `watched` those whose values it is made of;
    functions, operators and types that are not Postgres's own are there by oid."""

    read: tuple[str, ...] = ()
    watched: tuple[str, ...] = ()
    is_of_whole_row: bool = False
    functions: tuple[int, ...] = ()
    operators: tuple[int, ...] = ()
    types: tuple[int, ...] = ()  # of its columns, too, and all that these are made of


def dependence(
    connection: Connection,
    sync: Sync,
    oid: int,
    text: sql.Composable,
    source: sql.Composable,
    names: dict[int, str],
) -> Dependence:
    """What the text of `sync` depends on. `names` are the table's columns by number. Raises SchemaError."""
    generated: dict[int, set[int]] = {}
    for number, base in connection.execute(_SQL["generated"], {"oid": oid}):
        generated.setdefault(number, set()).add(base)
    if sync.columns is not None and sync.where is None:
        found = Dependence(tuple(name for name in names.values() if name in sync.columns))
    else:
        found = _probe(connection, sync, oid, text, source, names)
    # A virtual column has no value of its own that a trigger could compare.
    numbers = {number for number, name in names.items() if name in found.read}
    watched = {base for number in numbers for base in generated.get(number, {number})}
    given = {"oid": oid, "columns": list(found.read), "named": list(found.types)}
    types = tuple(number for (number,) in connection.execute(_SQL["types"], given))
    return replace(found, watched=tuple(names[number] for number in sorted(watched)), types=types)


def _probe(
    connection: Connection,
    sync: Sync,
    oid: int,
    text: sql.Composable,
    source: sql.Composable,
    names: dict[int, str],
) -> Dependence:
    words = _WORDS_OF_THE_CLOCK.search(f"{sync.expression} {sync.where}")
    if words:
        raise _refused(sync, f"it depends on the current time ({words[0]})")
    with connection.transaction(force_rollback=True):
        connection.execute(sql.SQL(_SQL["probe"]).format(text=text, source=source), ())
        rows = connection.execute(_SQL["depends"], {"oid": oid}).fetchall()
        types = tuple(number for (number,) in connection.execute(_SQL["named_types"]))
        tree = str((connection.execute(_SQL["tree"]).fetchone() or ("",))[0])
    numbers = {number for _, number, _ in rows}
    for is_own, number, relation in rows:
        if not is_own:
            raise _refused(sync, f"it reads {relation}, and no trigger sees a change there")
        if number < 0:
            raise _refused(sync, "it reads a system column, which changes without the row's text changing")
    read = tuple(name for number, name in names.items() if 0 in numbers or number in numbers)
    operators = tuple(sorted({number for number in _operators(tree) if number >= _FIRST_OWN_OID}))
    return Dependence(
        read,
        is_of_whole_row=0 in numbers,
        functions=_functions(connection, sync, tree),
        operators=operators,
        types=types,
    )


def _operators(tree: str) -> list[int]:
    return [int(number) for number in re.findall(r":opno (\d+)", tree)]


def _functions(connection: Connection, sync: Sync, tree: str) -> tuple[int, ...]:
    """The functions of the parsed text that are not Postgres's own. Raises SchemaError for what is not of the
    row."""
    for node, problem in _FORBIDDEN.items():
        if f"{{{node} " in tree:
            raise _refused(sync, problem)
    if _CLOCK_TYPES & set(map(int, _CASTS_BY_TEXT.findall(tree))):
        raise _refused(
            sync, "it casts text to a date or time, where 'now' is a value too; use to_timestamp()"
        )
    given = {
        "functions": [int(number) for number in re.findall(r":(?:funcid|opfuncid) (\d+)", tree)],
        "operators": _operators(tree),
    }
    own = []
    for function, schema, name, arguments, volatility, is_set, is_trusted, owner in connection.execute(
        _SQL["functions"], given
    ):
        by_settings = schema == "pg_catalog" and (
            name in _BY_SETTINGS_ALONE or (name == "age" and arguments == 2)
        )
        if volatility == "v" or (volatility == "s" and not by_settings):
            kind = "VOLATILE" if volatility == "v" else "STABLE"
            raise _refused(
                sync, f"function {schema}.{name} is {kind}, so its value may change while the row does not"
            )
        if is_set:
            raise _refused(sync, f"function {schema}.{name} gives several values for one row")
        if not is_trusted:
            problem = f"function {schema}.{name} is {owner}'s, and would run here with a superuser's rights"
            raise _refused(sync, problem, "Run freshvec as a role of its own (docs/operations.md, Roles).")
        if schema != "pg_catalog":
            own.append(function)
    return tuple(sorted(own))


def _refused(sync: Sync, problem: str, remedy: str = _REMEDY) -> SchemaError:
    what = "expression" if sync.expression else "columns"
    return SchemaError(f"use the {what} or where of sync {sync.name!r} on", sync.table, problem, remedy)
