"""Swaps and the configuration: what asks for one, and what a file that says something else does not do."""

import pytest

from freshvec.errors import SchemaError
from freshvec.records import Model
from freshvec.schema import editions
from freshvec.schema.plan import plan
from tests.integration.swapping import OTHER, Swapped, Wide, edit
from tests.support import MODEL, NullEncoder, until, wait_fresh


def test_workers_that_begin_after_a_commit_run_what_is_shown(swapped: Swapped) -> None:
    with swapped.running() as worker:
        swapped.begin()
        swapped.filled(worker)
        swapped.show()
    edit(swapped.app, "while nobody ran ")
    with swapped.running() as worker:
        assert {keeper.sync.model for keeper in worker.keepers} == {MODEL, OTHER}
        assert swapped.wrong(Wide) == []
        assert swapped.find().note.startswith(f'write model = "{OTHER}" into the file, since that is')
    swapped.sync["model"] = OTHER
    assert swapped.find().note == "", "the file says it"
    swapped.sync["model"] = "e5-large-v2"
    found = swapped.find()
    assert found.is_refused
    assert found.shown.model == OTHER


def test_a_file_that_names_another_model_asks_for_a_swap(swapped: Swapped) -> None:
    with swapped.running():
        pass
    swapped.sync["model"] = OTHER
    found = swapped.find()
    assert found.is_refused
    assert "`freshvec swap docs --model bge-m3`" in found.note
    assert "`freshvec apply docs --replace`" in found.note
    with swapped.running():
        assert swapped.wrong(NullEncoder) == [], "the worker keeps what there is"
    with swapped.connection() as connection:
        with pytest.raises(SchemaError, match="cannot apply sync 'docs': the file names model bge-m3"):
            editions.to_apply(connection, [swapped.declared])
        (replaced,) = editions.to_apply(connection, [swapped.declared], is_replaced=True)
        assert replaced.model == OTHER


def test_vectors_that_do_not_fit_the_table_are_refused_before_anything_is_noted(swapped: Swapped) -> None:
    """Else a worker would give up the vectors it has for ones that it cannot write."""
    with swapped.running() as worker:
        swapped.begin(model=OTHER)
        swapped.filled(worker)
        swapped.show()
    swapped.sync["model"] = "e5-large-v2"
    larger = Model("e5-large-v2", 16, 512, b"another 16 bytes")
    with swapped.connection() as connection:
        noted = connection.execute("SELECT * FROM freshvec.edition ORDER BY number").fetchall()
        with pytest.raises(
            SchemaError, match=r"its embeddings are vector\(12\).* `freshvec swap docs --from"
        ):
            editions.to_apply(
                connection,
                [swapped.declared],
                is_replaced=True,
                look=lambda sync: plan(connection, sync, larger, None),
            )
        assert connection.execute("SELECT * FROM freshvec.edition ORDER BY number").fetchall() == noted


def test_a_sync_without_vectors_is_defined_anew_without_being_asked(swapped: Swapped) -> None:
    swapped.apply()
    swapped.sync["model"] = OTHER
    assert not swapped.find().is_refused


def test_a_swap_to_what_the_file_asks_for_is_quiet_once_it_is_shown(swapped: Swapped) -> None:
    with swapped.running():
        pass
    swapped.sync["model"] = OTHER
    with swapped.running() as worker:
        swapped.begin(model=OTHER)
        swapped.filled(worker)
        assert swapped.find().note == ""
        swapped.show()
        found = swapped.find()
        assert (found.note, found.shown.model) == ("", OTHER)
        assert swapped.wrong(Wide) == []


def test_another_type_in_the_file_asks_for_a_swap_too(swapped: Swapped) -> None:
    with swapped.running():
        pass
    swapped.sync["target"] = {"type": "halfvec"}
    found = swapped.find()
    assert found.is_refused
    assert "`freshvec swap docs --from-file`" in found.note
    assert found.shown.target.type == "vector"
    swapped.sync["target"] = {"type": "halfvec", "table": "docs_half"}
    assert not swapped.find().is_refused, "another table takes nothing from anybody"


def test_a_reloaded_file_with_another_model_stops_nothing(swapped: Swapped) -> None:
    with swapped.running() as worker:
        keeper = worker.keepers[0]
        swapped.sync["model"] = OTHER
        worker.reload()
        until("the file is taken up", lambda: swapped.reloads == 1)
        swapped.app.execute("UPDATE docs SET body = 'after it' WHERE id = 1")
        wait_fresh(worker)
        assert worker.keepers == [keeper], "it goes on untouched"
        assert swapped.wrong(NullEncoder) == []


def test_an_edition_that_was_noted_by_an_older_version_is_the_same(swapped: Swapped) -> None:
    """It had fewer settings than this one has."""
    swapped.apply()
    swapped.begin()
    swapped.app.execute("UPDATE freshvec.edition SET declared = declared - 'where', file = file - 'where'")
    found = swapped.find()
    assert (found.note, found.is_refused, found.run[1].model) == ("", False, OTHER)
    assert swapped.begin() == found.other
