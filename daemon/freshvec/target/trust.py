"""Whose the tables of a target are.

They lie in a schema of the application's, whose owner may drop any table there and put another one, or a
view, in its place. What its owner hangs on a table runs with the rights of whoever writes to it. So we write
only to tables whose owner gains nothing by that: one that has this role's rights anyway, or those of the role
that made the sync's objects.
"""

from freshvec.db import Session, queries, quoted_name
from freshvec.errors import SchemaError
from freshvec.source.bound import BoundSync

_SQL = queries("target/trust")


class Trust:
    """The tables of one sync, looked at by each transaction that writes to them."""

    def __init__(self, bound: BoundSync) -> None:
        self._bound = bound
        self._lock = bound.compose(_SQL["lock"])
        queue = quoted_name("freshvec", f"queue_{bound.name}")
        self._given = {"tables": [quoted_name(*table) for table in bound.tables], "queue": queue}

    def hold(self, connection: Session) -> None:
        """Look, in a transaction in which they then stay what they are. Raises SchemaError."""
        connection.execute(self._lock, ())
        self.check(connection)

    def check(self, connection: Session) -> None:
        """Raises SchemaError where something of somebody else's has the name of one of them."""
        row = connection.execute(_SQL["untrusted"], self._given).fetchone()
        if row is None:
            return
        name, is_other, owner, maker = row
        subject, operation = name.replace('"', ""), f"use the target of sync {self._bound.name!r},"
        if is_other:
            problem = "a table of that name exists and was not made by freshvec"
            remedy = 'Name another one: target = { table = "…" }, or drop it.'
            raise SchemaError(operation, subject, problem, remedy)
        problem = f"it is {owner}'s, whose triggers would run with this role's rights"
        remedy = f"ALTER TABLE {name} OWNER TO {maker}; or drop it, where freshvec did not make it."
        raise SchemaError(operation, subject, problem, remedy)


def check(connection: Session, bound: BoundSync) -> None:
    """Look once. Raises SchemaError."""
    Trust(bound).check(connection)
