"""The text of a row in SQL, as a sync declares it, over the source's own column names."""

from typing import LiteralString

from psycopg import sql

from freshvec.config import Sync
from freshvec.db import quoted, verbatim
from freshvec.source import blank

_MOST_ARGUMENTS = 90  # of one function call; Postgres takes 100


def text_of(sync: Sync, encoding: str) -> sql.Composable:
    """The text, in a database of that encoding; NULL where there is nothing to embed."""
    rendered = _collated(sync)
    wanted = blank.shows_something(rendered, encoding)
    if sync.where:
        wanted = sql.SQL("({}) AND {}").format(verbatim(sync.where), wanted)
    return sql.SQL("CASE WHEN {} THEN {} END").format(wanted, rendered)


def rendered_of(sync: Sync) -> sql.Composable:
    """What is rendered of the rows that `where` chooses, blank or not."""
    rendered = _collated(sync)
    if not sync.where:
        return rendered
    return sql.SQL("CASE WHEN {} THEN {} END").format(verbatim(sync.where), rendered)


def hash_of(text: LiteralString, cut: bytes) -> sql.Composed:
    """The hash of a text, and of how it is cut into passages."""
    marked = sql.SQL(" || {}::bytea").format(sql.Literal(cut)) if cut else sql.SQL("")
    hashed = sql.SQL("substring(sha256(convert_to({}, 'UTF8'){}) FROM 1 FOR 16)")
    return hashed.format(sql.SQL(text), marked)


def _collated(sync: Sync) -> sql.Composable:
    return sql.SQL('({} COLLATE "C")').format(_rendered(sync))


def _rendered(sync: Sync) -> sql.Composable:
    if sync.columns is None:
        return sql.SQL("({})::text").format(verbatim(sync.expression or ""))
    columns = [quoted(column) for column in sync.columns]
    comma = sql.SQL(", ")
    if len(columns) <= _MOST_ARGUMENTS:
        return sql.SQL("concat_ws(E'\\n', {})").format(comma.join(columns))
    one = sql.SQL("CASE WHEN {0} IS NOT NULL THEN concat({0}) END")
    parts = comma.join(one.format(column) for column in columns)
    return sql.SQL("concat_ws(E'\\n', VARIADIC ARRAY[{}])").format(parts)
