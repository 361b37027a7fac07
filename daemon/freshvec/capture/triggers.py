"""Capture: the statement triggers that note which rows changed."""

from psycopg import sql

from freshvec.db import Connection, queries, quoted, verbatim
from freshvec.source.bound import BoundSync

_SQL = queries("capture/triggers")
_EVENTS = ("insert", "update", "delete", "truncate")


def statements(bound: BoundSync) -> list[sql.Composed]:
    """The DDL that captures every change of the source, its partitions and its children."""
    ddl = [
        bound.compose(_SQL["function"], name=verbatim(bound.name)),
        bound.compose(_SQL["revoke"]),
    ]
    for relation in bound.relations:
        for event in _EVENTS:
            names = {"trigger": quoted(f"freshvec_{bound.name}_{event}"), "relation": quoted(*relation)}
            ddl += [bound.compose(_SQL[event], **names), bound.compose(_SQL["enable"], **names)]
    return ddl


def is_installed(connection: Connection, bound: BoundSync) -> bool:
    """Whether every trigger is there and fires always."""
    row = connection.execute(_SQL["installed"], {"function": f"capture_{bound.name}"}).fetchone()
    return bool(row and row[0] == len(_EVENTS) * len(bound.relations))


def removal(connection: Connection, name: str) -> list[sql.Composed]:
    """The DDL that takes the triggers away, on whatever tables they are by now."""
    function = f"capture_{name}"
    ddl = [
        sql.SQL(_SQL["drop_trigger"]).format(trigger=quoted(trigger), relation=quoted(schema, table))
        for schema, table, trigger in connection.execute(_SQL["triggers"], {"function": function})
    ]
    return [*ddl, sql.SQL(_SQL["drop_function"]).format(capture=quoted("freshvec", function))]
