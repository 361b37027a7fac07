"""Reading the target only where it is ours.

What lies under its name may be its schema's owner's by now: a table whose columns have types of theirs, with
casts that would run with our rights, even on the NULLs of an outer join. Transactions that write look first
(target/trust.py); a read is one statement, and has the condition in its outermost WHERE, where Postgres
evaluates it before all else: it depends on no row. Tables are named by constants that Postgres resolves when
it resolves and locks the query's own tables, so that both are the same.
"""

from collections.abc import Sequence

from psycopg import sql

from freshvec.db import queries, quoted

_SQL = queries("source/trusted")


def condition(tables: Sequence[tuple[str, str]], queue_name: sql.Composable) -> sql.Composable:
    """What a query that reads these tables must have in its WHERE."""
    names = [sql.Literal(quoted(*table).as_string()) for table in tables]
    oids = sql.SQL(", ").join(sql.SQL("{}::regclass").format(name) for name in names)
    return sql.SQL(_SQL["is_trusted"]).format(queue_name=queue_name, table_oids=oids)
