"""What the maker's default privileges give others of what is just made is not theirs."""

from psycopg import sql

from freshvec.db import queries

_SQL = queries("source/default_rights")


def taken_back(oids: sql.Composable) -> sql.Composed:
    """The DDL that leaves tables, views and sequences to their owner alone. `oids` is a list of them in SQL,
    or a query that gives them."""
    return sql.SQL(_SQL["take_back"]).format(oids=oids)
