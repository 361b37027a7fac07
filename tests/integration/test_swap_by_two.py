"""Two who are at one swap at the same time: what one has done, the other does not undo unawares."""

import pytest

from freshvec.db import connect
from freshvec.errors import DatabaseError, SchemaError
from freshvec.schema import editions, swap
from freshvec.schema.apply import apply, carry_out
from freshvec.schema.plan import plan
from tests.integration.swapping import OTHER, Swapped, Wide, model
from tests.support import MODEL, NullEncoder, wait_fresh


def test_what_has_come_to_be_shown_is_not_taken_away(swapped: Swapped) -> None:
    """Who is to take it away was told so before another let the view show it."""
    with swapped.running() as worker:
        swapped.begin()
        swapped.filled(worker)
    swapped.show()
    found = swapped.find()
    assert found.other is not None
    with swapped.connection() as connection:
        swap.leave(connection, found.shown.name)
        with pytest.raises(SchemaError, match=r"docs\.2: it is to be kept\. See `freshvec swap docs`\."):
            swap.take_away(connection, found.shown.name)
        assert swapped.wrong(Wide) == []
        swap.leave(connection, found.other.name)
        pairs = [(each, model(each.model)) for each in (found.other, found.shown)]
        swap.show(connection, *pairs, keep_seconds=None)
        with pytest.raises(SchemaError, match="docs: it is to be kept"):
            swap.take_away(connection, found.other.name)
    assert swapped.wrong(NullEncoder) == []
    assert swapped.find().leaving == ()


def test_a_plan_of_before_undoes_no_commit(swapped: Swapped) -> None:
    """Whoever planned while the other edition was shown carries nothing of it out."""
    with swapped.running() as worker:
        swapped.begin()
        swapped.filled(worker)
        swapped.app.execute("DROP TRIGGER freshvec_vector ON docs_embedding")
        with swapped.connection() as connection:
            planned = plan(connection, swapped.declared, model(MODEL))
            swapped.app.execute("TRUNCATE freshvec.rescan")
            with connect(swapped.settings.database.url, "test") as other:
                apply(other, swapped.declared, model(MODEL))
            swapped.show()
            assert planned.objects
            with pytest.raises(DatabaseError, match="another edition of it has come to be shown"):
                carry_out(connection, planned)
        wait_fresh(worker)
        assert swapped.wrong(Wide) == []


def test_nothing_is_told_of_a_swap_that_another_began(swapped: Swapped) -> None:
    swapped.apply()
    with swapped.connection() as connection:
        found = editions.find(connection, swapped.declared)
        new = swap.proposed(found, {"model": OTHER})
        swap.begin(connection, found, new, ("public", "docs_embedded"))
        with pytest.raises(SchemaError, match="another swap of it has begun meanwhile"):
            swap.begin(connection, found, new, ("public", "docs_embedded"))
