"""Keyset pages: a table in key order, each page after the last key of the one before."""

from typing import Any, Literal, LiteralString

from psycopg import sql

from freshvec.db import Session
from freshvec.records import Key
from freshvec.source.bound import BoundSync


class KeysetPages:
    """Pages by a query template that gives the key's texts first and has `{beyond}` and `%(limit)s` in it.

    `after` is the last key read, `upto` one that the pages do not go beyond, `is_exhausted` whether there is
    no page beyond `after`.
    """

    def __init__(
        self,
        connection: Session,
        bound: BoundSync,
        template: LiteralString,
        alias: Literal["", "t_"] = "",
        after: Key | None = None,
        upto: Key | None = None,
    ) -> None:
        self._connection = connection
        self._bound = bound
        self._upto = bound.last_values(upto) if upto else {}
        bounded = ["{up_to_last}"] if upto else []
        first, following = bounded, [f"{{{alias}beyond_after}}", *bounded]
        self._first = bound.compose(template, beyond=_where(bound, first))
        self._next = bound.compose(template, beyond=_where(bound, following))
        self.after = after
        self.is_exhausted = False

    def read(self, limit: int, *, on: Session | None = None, **params: object) -> list[tuple[Any, ...]]:
        """The next page's rows, at most `limit`; from another server where one is given."""
        beyond = self._bound.key_values(self.after) if self.after else {}
        given = {"limit": limit, **params, **beyond, **self._upto}
        query = self._next if self.after else self._first
        rows = (on or self._connection).execute(query, given, binary=True).fetchall()
        if rows:
            self.after = rows[-1][: len(self._bound.key)]
        self.is_exhausted = len(rows) < limit
        return rows


def _where(bound: BoundSync, conditions: list[LiteralString]) -> sql.Composable:
    if not conditions:
        return sql.SQL("")
    return bound.compose("WHERE " + " AND ".join(f"({condition})" for condition in conditions))
