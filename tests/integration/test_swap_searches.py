"""Swaps as those who search see them: nobody waits, and all are answered from what is shown."""

import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, cast

import psycopg
from loguru import logger

from freshvec.schema import swap
from freshvec.web.serve import ServedModels
from tests.integration.swapping import OTHER, Swapped, Wide, model
from tests.support import MODEL, Connection, NullEncoder, count, models_in, until, wait_fresh


def test_freshness_is_asked_of_what_is_shown(swapped: Swapped) -> None:
    with swapped.running() as worker:
        swapped.begin()
        swapped.filled(worker)
        swapped.show()
    app = swapped.app
    app.execute("UPDATE docs SET body = 'stale' WHERE id = 3")
    app.execute('DELETE FROM freshvec."queue_docs"')
    asked = "SELECT freshvec.is_fresh('docs', '3'), freshvec.is_fresh('docs', '4'), freshvec.shown('docs')"
    assert app.execute(asked).fetchone() == (False, True, "docs.2")


class Beside:
    """A connection; before each of its statements somebody else searches, and waits for no lock."""

    def __init__(self, connection: Connection, searcher: Connection) -> None:
        self._connection = connection
        self._searcher = searcher
        self.found: list[int] = []

    def execute(self, *given: Any, **more: Any) -> Any:
        self.found.append(count(self._searcher, "docs_embedded"))
        return self._connection.execute(*given, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def test_no_search_waits_for_a_commit_at_any_of_its_statements(swapped: Swapped) -> None:
    with swapped.running() as worker:
        swapped.begin()
        swapped.filled(worker)
    with swapped.connection() as connection, psycopg.connect(swapped.url, autocommit=True) as searcher:
        searcher.execute("SET lock_timeout = '20ms'")
        beside, found = Beside(connection, searcher), swapped.find()
        pairs = [(each, model(each.model)) for each in reversed(found.run)]
        swap.show(cast(Connection, beside), *pairs, keep_seconds=None)
        assert len(beside.found) > 30
        assert set(beside.found) == {60}
        assert swapped.wrong(Wide) == []


def test_a_commit_waits_for_no_search_and_prepared_ones_follow_it(swapped: Swapped) -> None:
    with (
        swapped.running() as worker,
        psycopg.connect(swapped.url, autocommit=True) as searcher,
        psycopg.connect(swapped.url) as long_one,
    ):
        search = "SELECT embedding::text FROM docs_embedded WHERE id = 1"
        swapped.begin()
        swapped.filled(worker)
        long_one.execute("SELECT count(*) FROM docs_embedded")
        for _ in range(6):  # from the sixth time on its plan is kept
            before = searcher.execute(search, prepare=True).fetchone()
        swapped.show(patience=0.0)
        after = searcher.execute(search, prepare=True).fetchone()
        assert before is not None
        assert after is not None
        assert (before[0].count(","), after[0].count(",")) == (7, 11)
        long_one.rollback()


def test_a_model_that_a_swap_brings_is_served(models_dir: Path) -> None:
    dispatchers: dict[str, Any] = {}
    shown = {"docs": "bge-m3"}
    served = ServedModels(models_in(models_dir), dispatchers, lambda: shown)
    assert served.get(MODEL) is None
    assert served.get("docs") is None
    dispatchers[MODEL] = object()
    assert served[MODEL].dispatcher is dispatchers[MODEL]
    assert list(served) == [MODEL]
    assert served.get("docs") is None, "its model is not there"
    shown["docs"] = MODEL
    assert served["docs"] == served[MODEL], "who names the sync gets the model that is shown"
    dispatchers[MODEL] = object()
    assert served["docs"].dispatcher is dispatchers[MODEL], "it was loaded anew"
    del dispatchers[MODEL]
    assert served.get("docs") is None, "it was let go of"


def test_a_model_with_which_nothing_is_encoded_any_more_is_let_go_of(swapped: Swapped) -> None:
    """And loaded again where a later swap wants it."""
    with swapped.running() as worker:

        def is_alone(name: str) -> bool:
            return worker.dispatchers.keys() == {name}

        def is_gone(kept: weakref.ref[Any]) -> bool:
            return kept() is None

        for old, new in ((MODEL, OTHER), (OTHER, MODEL)):
            swapped.filled(worker, swapped.begin(model=new).name)
            assert worker.dispatchers.keys() == {old, new}
            kept = weakref.ref(worker.dispatchers[old])
            swapped.show()
            swapped.end()
            until("the old one is let go of", partial(is_alone, new))
            until("its memory is given back", partial(is_gone, kept))
        wait_fresh(worker)
        assert swapped.wrong(NullEncoder) == []


def test_what_a_worker_is_about_to_mend_is_waited_for(swapped: Swapped) -> None:
    said: list[str] = []
    with swapped.running() as worker:
        swapped.begin()
        swapped.filled(worker)
    swapped.app.execute("ALTER TABLE docs DISABLE TRIGGER USER")
    listening = logger.add(lambda line: said.append(str(line)))
    with ThreadPoolExecutor(1) as pool:
        showing = pool.submit(swapped.show)
        until("it says what it waits for", lambda: any("let a worker do it" in line for line in said))
        with swapped.running():
            showing.result(60)
            assert swapped.wrong(Wide) == []
    logger.remove(listening)
