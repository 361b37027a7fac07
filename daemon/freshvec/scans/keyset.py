"""Keyset pages: a table in key order, each page after the last key of the one before."""

from typing import Any, Literal, LiteralString

from psycopg import sql

from freshvec.db import Session
from freshvec.records import Key
from freshvec.source.bound import BoundSync


class KeysetPages:
    """Pages by a query template that gives the key's texts first and has `{beyond}` and `%(limit)s` in it.

    `after` is the last key read, `is_exhausted` whether there is no page beyond it.
    """

    def __init__(
        self,
        connection: Session,
        bound: BoundSync,
        template: LiteralString,
        alias: Literal["", "t_"] = "",
        after: Key | None = None,
    ) -> None:
        self._connection = connection
        self._bound = bound
        self._first = bound.compose(template, beyond=sql.SQL(""))
        beyond = bound.compose(f"WHERE {{{alias}beyond_after}}")
        self._next = bound.compose(template, beyond=beyond)
        self.after = after
        self.is_exhausted = False

    def read(self, limit: int, **params: object) -> list[tuple[Any, ...]]:
        """The next page's rows, at most `limit`."""
        given = {"limit": limit, **params, **(self._bound.key_values(self.after) if self.after else {})}
        query = self._next if self.after else self._first
        rows = self._connection.execute(query, given, binary=True).fetchall()
        if rows:
            self.after = rows[-1][: len(self._bound.key)]
        self.is_exhausted = len(rows) < limit
        return rows
