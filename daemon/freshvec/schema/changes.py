"""What is changed on the application's own tables: made under locks that are held no longer than that takes,
and who stands in the way of them."""

from collections.abc import Sequence

from psycopg import sql

from freshvec.capture.triggers import Change
from freshvec.db import Connection
from freshvec.schema.objects import texts
from freshvec.schema.plan import Plan
from freshvec.source.locks import Holder, held, holders, with_partitions

_TOGETHER = 100  # tables whose triggers are changed in one transaction, so that nobody waits for long


def make(connection: Connection, changes: Sequence[Change]) -> None:
    """Make them, in a transaction per table. Raises LockedError and DatabaseError.

    What is about one of a partitioned table's partitions, whose locks are held anyway, is done along with it.
    """
    waiting = sorted(changes, key=lambda change: not change.is_of_rows)
    while waiting:
        first = waiting[0]
        tables = _locked(connection, first)
        among = set(tables)
        along = [change for change in waiting[1:] if change.relation in among]
        together = [first, *along][:_TOGETHER]
        with held(connection, tables, first.mode):
            ddl = [statement for change in together for statement in texts(change.statements)]
            connection.execute(sql.SQL(";\n".join(ddl)))
        waiting = [change for change in waiting if change not in together]


def in_the_way(connection: Connection, planned: Plan) -> list[Holder]:
    """Who holds the application's tables now, or waits for them, against what the plan does to them."""
    changes = [*planned.column, *planned.strays, *planned.triggers]
    found = [
        holder
        for change in changes
        for holder in holders(connection, _locked(connection, change), change.mode)
    ]
    return list({(holder.table, holder.pid, holder.prepared): holder for holder in found}.values())


def _locked(connection: Connection, change: Change) -> list[tuple[str, str]]:
    """The tables whose locks a change takes."""
    return with_partitions(connection, change.oid) if change.is_of_rows else [change.relation]
