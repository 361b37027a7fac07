"""Swaps cut off: the command's connection is gone before each of its statements, and the next attempt goes
on."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from freshvec.errors import DatabaseError
from freshvec.schema import swap
from freshvec.schema.apply import apply
from freshvec.schema.plan import plan
from tests.integration.swapping import OTHER, Swapped, Wide, model
from tests.support import MODEL, Connection, NullEncoder, count, exists

_ENCODERS = {MODEL: NullEncoder, OTHER: Wide}


class Cut:
    """A connection that is gone before its statement number `at`, as that of a process that was killed."""

    def __init__(self, connection: Connection, at: int) -> None:
        self._connection = connection
        self._at = at
        self.statements = 0

    def execute(self, *given: Any, **more: Any) -> Any:
        if self.statements == self._at:
            self._connection.close()
        self.statements += 1
        return self._connection.execute(*given, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@pytest.fixture
def filled(url: str, docs: Connection) -> Swapped:
    """`docs` with three rows, and two editions of them, both filled."""
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 3) g")
    swapped = Swapped(url, docs)
    with swapped.running() as worker:
        swapped.begin()
        swapped.filled(worker)
    return swapped


def cut_at_each(swapped: Swapped, act: Callable[[Connection], None]) -> Iterator[int]:
    """Do it with the connection cut before its first statement, before its second, and so on, until it is
    done without being cut."""
    at = 0
    while True:
        with swapped.connection() as connection:
            cut = Cut(connection, at)
            try:
                act(cast(Connection, cut))
            except DatabaseError:
                yield at
            else:
                assert at > 3, "it was cut at all"
                return
        at += 1


def assert_of_one_model(swapped: Swapped) -> None:
    """The view shows the edition that is noted, whole and right, and nothing is to be mended."""
    found = swapped.find()
    assert swapped.wrong(_ENCODERS[found.shown.model]) == []
    with swapped.connection() as connection:
        for each in found.run:
            planned = plan(connection, each, model(each.model))
            assert planned.is_applied, (each.name, planned.lacking)


def test_a_commit_that_is_cut_off_has_happened_or_has_not(filled: Swapped) -> None:
    def commit(connection: Connection) -> None:
        found = filled.find()
        assert found.other is not None
        pairs = [(each, model(each.model)) for each in (found.other, found.shown)]
        swap.show(connection, *pairs, keep_seconds=3600.0, patience=0.0)

    for _ in cut_at_each(filled, commit):
        assert_of_one_model(filled)
    assert_of_one_model(filled)
    assert filled.find().shown.model == OTHER


def test_a_beginning_that_is_cut_off_goes_on(filled: Swapped) -> None:
    filled.end_now()

    def begin(connection: Connection) -> None:
        found = filled.find()
        new = swap.proposed(found, {"model": OTHER})
        if new != found.other:
            swap.begin(connection, found, new, ("public", "docs_embedded"))
        apply(connection, new, model(OTHER), patience=0.0)

    for at in cut_at_each(filled, begin):
        assert filled.wrong(NullEncoder) == [], at
        if at % 10 == 0:
            filled.begin()
            assert_of_one_model(filled)
            filled.end_now()
    assert_of_one_model(filled)
    assert filled.find().other is not None


def test_an_edition_that_is_half_taken_away_goes_in_the_end(filled: Swapped) -> None:
    def end(connection: Connection) -> None:
        swap.leave(connection, "docs.2")
        swap.take_away(connection, "docs.2", patience=0.0)

    for at in cut_at_each(filled, end):
        found = filled.find()
        assert found.other is None or at < 2
        assert filled.wrong(NullEncoder) == [], at
    assert not exists(filled.app, "docs_embedding_2")
    assert count(filled.app, "freshvec.edition") == 0
    assert count(filled.app, "pg_proc WHERE proname LIKE '%docs.2'") == 0
