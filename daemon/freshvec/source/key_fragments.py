"""A sync's key, as queries about it name it: lists of its columns, given keys, and comparisons of them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from psycopg import sql

from freshvec.db import quoted, verbatim
from freshvec.source.key import beyond, up_to

if TYPE_CHECKING:
    from freshvec.source.bound import BoundSync


def fragments(bound: "BoundSync") -> dict[str, sql.Composable]:
    """What queries may name of a key."""
    return _lists(bound) | _conditions(bound)


def _lists(bound: "BoundSync") -> dict[str, sql.Composable]:
    """Key columns: as lists, as texts, as typed columns. `k1`, `k2`… stand for given ones."""
    numbered = [quoted(f"k{i}") for i, _ in enumerate(bound.key, 1)]
    placeholders = [sql.SQL(f"%(k{i})s") for i, _ in enumerate(bound.key, 1)]
    types = [column.declared for column in bound.key]
    plain = [verbatim(column.type) for column in bound.key]
    given = _list(_each("{}::text[]", placeholders))
    d, t = bound.keys("d"), bound.keys("t")
    # A parent and its children may have rows of one key. One of them stands for it.
    has_doubles = len(bound.relations) > 1 and not bound.relations[0].is_partitioned
    once = "DISTINCT ON ({}.place)" if has_doubles else ""
    return {
        **{f"once_{alias}": sql.SQL(once).format(quoted(alias)) for alias in ("k", "g")},
        # lists of columns
        "keys": _list(bound.keys()),
        "view_columns": _list(_each("{} {}", bound.keys(), plain)),
        "d_keys": _list(d),
        "t_keys": _list(t),
        "c_keys": _list(bound.keys("c")),
        "c_key_texts": _list(_each("{}::text", bound.keys("c"))),
        "r_keys": _list(bound.keys("r")),
        "k": _list(numbered),
        "d_keys_as_k": _list(_each("{} AS {}", d, numbered)),
        "g_keys": _list(_given(bound, "g")),
        "q_keys": _list(_given(bound, "q")),
        "k_typed": _list(_typed(bound)),
        # the same as texts: how keys travel between Postgres and the daemon
        "d_key_texts": _list(_each("{}::text", d)),
        "t_key_texts": _list(_each("{}::text", t)),
        "k_texts": _list(_each("{}::text", numbered)),
        # definitions of columns
        "k_typed_columns": _list(_each("{} {}", numbered, types)),
        "key_columns_typed": _list(_each("{} {} NOT NULL", bound.keys(), types)),
        "key_arguments": _list(plain),
        "arguments": _list(sql.SQL(f"${i}") for i, _ in enumerate(bound.key, 1)),
        # rows of key texts, given as one text[] parameter per key column
        "key_params": given,
        "d_or_t_key_texts": _list(_each("coalesce({}, {})::text", d, t)),
        "given_keys": sql.SQL("unnest({}) WITH ORDINALITY AS k ({}, place)").format(given, _list(numbered)),
    }


def _conditions(bound: "BoundSync") -> dict[str, sql.Composable]:
    """Which rows have which key, and which come after one that is given."""
    after = [column.cast(sql.SQL(f"%(k{i})s::text")) for i, column in enumerate(bound.key, 1)]
    last = [column.cast(sql.SQL(f"%(last{i})s::text")) for i, column in enumerate(bound.key, 1)]
    arguments: list[sql.Composable] = [sql.SQL(f"${i}") for i, _ in enumerate(bound.key, 1)]
    own, d, t = bound.keys(), bound.keys("d"), bound.keys("t")
    new: list[sql.Composable] = [sql.SQL("NEW.{}").format(name) for name in own]
    old: list[sql.Composable] = [sql.SQL("OLD.{}").format(name) for name in own]
    return {
        "d_is_k": bound.same(d, _typed(bound)),
        "t_is_k": bound.same(t, _typed(bound)),
        "t_is_g": bound.same(t, _given(bound, "g")),
        "d_is_t": bound.same(d, t),
        "d_is_c": bound.same(d, bound.keys("c")),
        "c_is_t": bound.same(bound.keys("c"), t),
        "c_is_r": bound.same(bound.keys("c"), bound.keys("r")),
        "c_is_new": bound.same(bound.keys("c"), new),
        "t_is_old": bound.same(t, old),
        "d_is_g": bound.same(d, _given(bound, "g")),
        "q_is_g": bound.same(_given(bound, "q"), _given(bound, "g")),
        "d_is_argument": bound.same(d, arguments),
        "t_is_argument": bound.same(t, arguments),
        "q_is_argument": bound.same(_given(bound, "q"), arguments),
        "t_is_new": bound.same(t, new),
        "beyond_after": beyond(bound.key, own, after),
        "t_beyond_after": beyond(bound.key, t, after),
        "up_to_last": up_to(bound.key, own, last),
    }


def _given(bound: "BoundSync", alias: str) -> list[sql.Composable]:
    return [quoted(alias, f"k{i}") for i, _ in enumerate(bound.key, 1)]


def _typed(bound: "BoundSync") -> list[sql.Composable]:
    """Given keys, which are texts, as values of the key's types."""
    return [column.cast(given) for column, given in zip(bound.key, _given(bound, "k"), strict=True)]


def _each(pattern: Any, *columns: Iterable[sql.Composable]) -> list[sql.Composed]:
    """`pattern` filled in once per key column."""
    return [sql.SQL(pattern).format(*parts) for parts in zip(*columns, strict=True)]


def _list(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)
