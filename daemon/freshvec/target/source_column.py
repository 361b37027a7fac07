"""Vectors in a column of the source: written where the application is at home, as a guest who never waits.

A row that somebody else has is not written, but tried again later (`held_back`). What is ours is locked in
its newest version, whose text must be the very one that was encoded; else nothing of it is written, and its
own queue entry brings it again. The target, a companion here, tells of a vector only in the transaction that
wrote it, so the two agree whatever happens.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql

from freshvec.db import Session, as_sent, queries, quoted
from freshvec.errors import SchemaError
from freshvec.records import Key, Outcome
from freshvec.source import layout
from freshvec.source.bound import BoundSync
from freshvec.source.rows import is_of_the_row
from freshvec.target.upsert import TargetWriter

_SQL = queries("target/source_column")
_WAIT_MILLISECONDS = 50  # for a table's lock, or in a trigger of the application's; deadlock_timeout is 1 s
_IN_USE = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.SerializationFailure,  # the row has just moved to another partition
    psycopg.errors.DeadlockDetected,
)
_NOT_HELD = "its vector is not written: a trigger of the table prevents or changes it"

Written = tuple[dict[str, int], list[Key]]  # differences of counts, and keys to be read again


class ColumnWriter(TargetWriter):
    """Writes vectors into the source, and what is known of them into the target."""

    def __init__(self, connection: Session, bound: BoundSync) -> None:
        super().__init__(connection, bound)
        parts = self.vector_parts()
        parts |= _parts(bound, parts["embedding"])
        self._column = {
            name: bound.compose(_SQL[name], **parts) for name in ("claim", "upsert", "fail", "empty", "there")
        }
        (self._path,) = connection.execute(_SQL["path"]).fetchone() or ("",)

    def _begin(self) -> None:
        """As of a target. `held_back` are after each write the keys of rows that somebody else has."""
        super()._begin()
        self.held_back = set()
        self.connection.execute(self._column["claim"], {"milliseconds": str(_WAIT_MILLISECONDS)})

    def _store(self, outcomes: list[Outcome]) -> Written:
        return self._attempt(outcomes, self._upsert, self._fail)

    def _delete(self, outcomes: list[Outcome], name: str) -> Written:
        if name != "clear":
            return super()._delete(outcomes, name)
        return self._attempt(outcomes, self._clear, self._clear_target)

    def _attempt(
        self,
        outcomes: list[Outcome],
        act: Callable[[list[Outcome]], Written],
        give_up: Callable[[list[Outcome], str], Written],
    ) -> Written:
        """Write these rows. One that the table refuses, by a constraint or a trigger, is found by halving."""
        if not outcomes:
            return {"embedded": 0, "failed": 0, "refused": 0}, []
        try:
            with self.connection.transaction():
                return act(outcomes)
        except _IN_USE:
            self.held_back |= {outcome.key for outcome in outcomes}
            return self._attempt([], act, give_up)
        except psycopg.Error as error:
            if not is_of_the_row(error):
                raise
            if len(outcomes) == 1:
                problem = error.diag.message_primary or str(error)
                return give_up(outcomes, f"its vector cannot be written: {problem}"[:500])
        middle = len(outcomes) // 2
        first = self._attempt(outcomes[:middle], act, give_up)
        return _sum(first, self._attempt(outcomes[middle:], act, give_up))

    def _upsert(self, outcomes: list[Outcome]) -> Written:
        outcomes, params = self._given(outcomes)
        row = self._write("upsert", params)
        embedded, failed, places, highest, unknown, claimed, due, held = row
        self._highest = max(self._highest, highest or 0)
        self._hold_back(outcomes, claimed)
        written = {"embedded": embedded, "failed": failed, "refused": unknown}, _keys(outcomes, places)
        refused = [outcomes[place - 1] for place in sorted(set(due or ()) - set(held or ()))]
        return _sum(written, self._fail(refused, _NOT_HELD)) if refused else written

    def _write(self, name: str, params: Mapping[str, object]) -> tuple[Any, ...]:
        """The answer of a statement that writes to the source."""
        # A plan takes longer than its execution, for few rows: each session makes it once.
        query, given = self._column[name], {**params, "path": self._path}
        row = self.connection.execute(query, given, prepare=True).fetchone()
        self.connection.execute(_SQL["own_path"])
        assert row is not None
        return row

    def _fail(self, outcomes: list[Outcome], problem: str) -> Written:
        """The rows keep the reason, like a text that cannot be encoded."""
        params = self._params(outcomes) | self._hashes(outcomes) | self._model
        errors = {"errors": [outcome.error or problem for outcome in outcomes]}
        embedded, failed = self.connection.execute(self._column["fail"], params | errors).fetchone() or (0, 0)
        return {"embedded": embedded, "failed": failed, "refused": 0}, []

    def _clear(self, outcomes: list[Outcome]) -> Written:
        claimed, emptied = self._write("empty", self._bound.key_arrays([outcome.key for outcome in outcomes]))
        held_back = self._hold_back(outcomes, claimed)
        has_text = set(claimed or ()) - set(emptied or ())  # again: its own entry tells
        cleared = [
            outcome
            for place, outcome in enumerate(outcomes, 1)
            if place not in has_text and outcome.key not in held_back
        ]
        return self._clear_target(cleared) if cleared else ({"embedded": 0, "failed": 0, "refused": 0}, [])

    def _clear_target(self, outcomes: list[Outcome], problem: str = "") -> Written:
        """Nothing tells of a vector any more, where the table does not let it go."""
        return super()._delete(outcomes, "clear")

    def _hold_back(self, outcomes: list[Outcome], claimed: list[int] | None) -> set[Key]:
        """Of the rows that were not to be had: those that are there are tried again."""
        others = [outcome for place, outcome in enumerate(outcomes, 1) if place not in set(claimed or ())]
        if not others:
            return set()
        keys = self._bound.key_arrays([outcome.key for outcome in others])
        there = {others[place - 1].key for (place,) in self.connection.execute(self._column["there"], keys)}
        self.held_back |= there
        return there


def making(bound: BoundSync) -> sql.Composed:
    """The statement that makes the column."""
    return bound.compose(_SQL["add_column"])


def is_gone(bound: BoundSync) -> SchemaError:
    """Why a sync cannot be kept whose column somebody has dropped: to add another is for them to decide."""
    return SchemaError(
        f"write the vectors of sync {bound.name!r} to",
        f"{bound.sync.table}, column {bound.sync.target.column}",
        "it is not there any more",
        f"{as_sent(making(bound))}; or `freshvec remove {bound.declared_name}`, or name another column.",
    )


def _parts(bound: BoundSync, embedding: sql.Composable) -> dict[str, sql.Composable]:
    """What these statements name beside what all do."""
    numbered = [f"k{i}" for i, _ in enumerate(bound.key, 1)]
    d = [quoted("d", name) for name in numbered]
    rows = [quoted("freshvec_given", name) for name in numbered]
    given = [column.cast(quoted("k", name)) for column, name in zip(bound.key, numbered, strict=True)]
    return {
        "k_typed_as_k": _named(given, numbered),
        "own_keys_as_k": _named(bound.keys(), numbered),
        "own_is_given": bound.same(bound.keys(), rows),
        "d_ks": sql.SQL(", ").join(d),
        "t_is_d": bound.same(bound.keys("t"), d),
        "digest": layout.digest(bound, embedding),
        "digest_of_d": layout.digest(bound, quoted("d", bound.sync.target.column)),
        "digest_of_own": layout.digest(bound, quoted(bound.sync.target.column)),
    }


def _named(columns: Sequence[sql.Composable], names: list[str]) -> sql.Composable:
    """Columns of a query, under these names."""
    pairs = zip(columns, map(quoted, names), strict=True)
    return sql.SQL(", ").join(sql.SQL("{} AS {}").format(*pair) for pair in pairs)


def _keys(outcomes: list[Outcome], places: list[int] | None) -> list[Key]:
    return [outcomes[place - 1].key for place in places or ()]


def _sum(one: Written, other: Written) -> Written:
    return {what: one[0][what] + other[0][what] for what in one[0]}, one[1] + other[1]
