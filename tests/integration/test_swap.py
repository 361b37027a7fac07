"""Swaps: another set of vectors is filled beside the old one, shown, taken back, and taken away."""

from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

from freshvec.db import connect
from freshvec.errors import DatabaseError, SchemaError
from freshvec.schema import editions, migrations, swap
from freshvec.schema.apply import apply, carry_out, remove
from freshvec.schema.plan import plan
from freshvec.web.serve import ServedModels
from tests.integration.swapping import OTHER, Swapped, Wide, model
from tests.support import MODEL, Connection, NullEncoder, count, exists, models_in, until, wait_fresh


@pytest.fixture
def swapped(either_url: str, app: Connection) -> Swapped:
    """`docs (id, body, title)` with 60 rows, to be kept."""
    app.execute("CREATE TABLE docs (id int PRIMARY KEY, body text, title text DEFAULT 'title')")
    app.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 60) g")
    return Swapped(either_url, app)


def edit(app: Connection, word: str) -> None:
    app.execute("UPDATE docs SET body = %s || id WHERE id <= 20", (word,))
    app.execute("DELETE FROM docs WHERE id = 21")
    app.execute("INSERT INTO docs VALUES (21, %s)", (word,))
    app.execute("UPDATE docs SET body = NULL WHERE id = 22")


def oid(app: Connection) -> tuple[object, ...] | None:
    return app.execute("SELECT 'docs_embedded'::regclass::oid").fetchone()


def test_a_swap_is_filled_shown_taken_back_and_finished(swapped: Swapped) -> None:
    app = swapped.app
    with swapped.running() as worker:
        before = oid(app)
        app.execute("CREATE VIEW theirs AS SELECT id FROM docs_embedded")
        swapped.begin()
        swapped.filled(worker)
        edit(app, "amid ")
        wait_fresh(worker)
        assert swapped.wrong(NullEncoder) == [], "the old one is shown, and fresh"
        assert swapped.find().beside.startswith("docs is shown, docs.2 is not shown;")
        swapped.show()
        until("the new one is shown, and right", lambda: swapped.is_right(Wide))
        edit(app, "after ")
        wait_fresh(worker)
        assert swapped.wrong(Wide) == []
        swapped.show(keep_seconds=None)
        assert swapped.wrong(NullEncoder) == [], "the old one was kept fresh"
        edit(app, "back ")
        wait_fresh(worker)
        assert swapped.wrong(NullEncoder) == []
        swapped.show()
        swapped.end()
        assert oid(app) == before, "the view was never dropped"
        edit(app, "finished ")
        wait_fresh(worker)
        assert swapped.wrong(Wide) == []
        assert not exists(app, "docs_embedding")
        assert count(app, "freshvec.sync") == 1


def test_nothing_is_walked_anew_by_a_commit(swapped: Swapped) -> None:
    with swapped.running() as worker:
        swapped.begin()
        swapped.filled(worker)
        swapped.show()
        with swapped.connection() as connection:
            for each in swapped.find().run:
                planned = plan(connection, each, model(each.model))
                assert planned.is_applied, planned.lacking
    walks = "SELECT name, generation, backfill_done FROM freshvec.sync ORDER BY name"
    before = swapped.app.execute(walks).fetchall()
    with swapped.running():
        assert swapped.app.execute(walks).fetchall() == before


def test_abandoning_leaves_nothing_behind(swapped: Swapped) -> None:
    with swapped.running() as worker:
        swapped.begin()
        swapped.filled(worker)
        swapped.end()
        edit(swapped.app, "later ")
        wait_fresh(worker)
        assert swapped.wrong(NullEncoder) == []
    assert not exists(swapped.app, "docs_embedding_2")
    assert count(swapped.app, "freshvec.edition") == 0
    functions = "pg_proc WHERE proname LIKE '%%docs.2%%'"
    assert count(swapped.app, functions) == 0
    assert count(swapped.app, "pg_trigger WHERE tgname LIKE '%docs.2%'") == 0


def test_columns_and_type_may_be_swapped_and_the_view_keeps_its_grants(swapped: Swapped) -> None:
    app = swapped.app
    app.execute("DROP ROLE IF EXISTS swap_reader; CREATE ROLE swap_reader")
    try:
        with swapped.running() as worker:
            app.execute("GRANT SELECT ON docs_embedded TO swap_reader")
            app.execute("CREATE VIEW theirs AS SELECT id FROM docs_embedded")
            new = swapped.begin(columns=["title"], type="halfvec")
            assert (new.columns, new.target.type) == (("title",), "halfvec")
            swapped.filled(worker)
            with pytest.raises(SchemaError, match=r"and view public\.theirs is made upon it.*Drop that view"):
                swapped.show()
            assert swapped.wrong(NullEncoder) == [], "nothing has changed"
            app.execute("DROP VIEW theirs")
            swapped.show()
            kind = "SELECT DISTINCT pg_typeof(embedding)::text FROM docs_embedded"
            assert app.execute(kind).fetchall() == [("halfvec",)]
            granted = "SELECT has_table_privilege('swap_reader', 'docs_embedded', 'SELECT')"
            assert app.execute(granted).fetchone() == (True,)
            swapped.show()
            assert swapped.wrong(NullEncoder) == []
            app.execute("DROP VIEW docs_embedded; REVOKE ALL ON docs FROM swap_reader")
    finally:
        app.execute("DROP OWNED BY swap_reader; DROP ROLE swap_reader")


def test_texts_may_be_cut_by_a_swap_and_made_whole_again(swapped: Swapped) -> None:
    passages = "SELECT bool_and(passage = btrim(body)) FROM docs_embedded JOIN docs USING (id)"
    with swapped.running():
        pass
    swapped.sync["chunk"] = "auto"
    found = swapped.find()
    assert found.is_refused
    assert (
        "vectors of type vector of passages, and they are vector: `freshvec swap docs --from-file`"
        in found.note
    )
    with swapped.running() as worker:
        assert swapped.begin(chunk={}).chunk is not None
        swapped.filled(worker)
        swapped.show()
        assert swapped.find().note == ""
        assert swapped.wrong(NullEncoder) == []
        assert swapped.app.execute(passages).fetchone() == (True,)
        edit(swapped.app, "after ")
        wait_fresh(worker)
        swapped.show(keep_seconds=None)
        assert swapped.wrong(NullEncoder) == []
        swapped.show()
        swapped.end()
        assert swapped.app.execute(passages).fetchone() == (True,)
        assert exists(swapped.app, "docs_embedding_2")
        assert not exists(swapped.app, "docs_embedding")


def test_another_swap_is_refused_and_the_same_goes_on(swapped: Swapped) -> None:
    swapped.apply()
    first = swapped.begin()
    assert swapped.begin() == first
    with pytest.raises(SchemaError, match=r"edition docs\.2 stands beside.*--abandon"):
        swapped.begin(columns=["title"])
    assert count(swapped.app, "freshvec.edition") == 2


def test_what_was_never_applied_cannot_be_swapped(swapped: Swapped) -> None:
    with swapped.connection() as connection:
        migrations.migrate(connection)
    with pytest.raises(SchemaError, match="never applied"):
        swapped.begin()


def test_the_same_again_is_no_swap(swapped: Swapped) -> None:
    swapped.apply()
    with pytest.raises(SchemaError, match="of that model, text and type already"):
        swapped.begin(model=MODEL)


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


def test_removing_a_sync_removes_every_edition(swapped: Swapped) -> None:
    with swapped.running() as worker:
        swapped.begin()
        swapped.filled(worker)
        swapped.show()
    with swapped.connection() as connection:
        names = editions.names_of(connection, "docs")
        assert names == ["docs", "docs.2"], "the shown one goes last"
        assert [remove(connection, name) for name in names] == [True, True]
    app = swapped.app
    gone = ("docs_embedding", "docs_embedding_2", "docs_embedded", "freshvec.queue_docs")
    assert [name for name in gone if exists(app, name)] == []
    left = "pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = 'freshvec' AND proname LIKE"
    assert count(app, f"{left} '%docs%'") == 0
    assert count(app, "freshvec.edition") == count(app, "freshvec.sync") == 0


def test_an_old_edition_leaves_when_its_time_is_over(swapped: Swapped) -> None:
    with swapped.running() as worker:
        swapped.begin()
        swapped.filled(worker)
        swapped.show(keep_seconds=0.0)
        until("it is gone", lambda: not exists(swapped.app, "docs_embedding"))
        edit(swapped.app, "later ")
        until("all is right", lambda: swapped.is_right(Wide))
        assert [keeper.sync.name for keeper in worker.keepers] == ["docs.2"]
        again = swapped.begin(model=MODEL)
        assert (again.name, again.target.table) == ("docs.3", '"docs_embedding_3"')
        swapped.filled(worker, "docs.3")
        swapped.show()
        until("all is right again", lambda: swapped.is_right(NullEncoder))


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


def test_row_security_and_partitions_hold_for_the_new_edition(either_url: str, app: Connection) -> None:
    app.execute("CREATE TABLE docs (id int PRIMARY KEY, body text) PARTITION BY HASH (id)")
    part = "CREATE TABLE docs_{0} PARTITION OF docs FOR VALUES WITH (MODULUS 2, REMAINDER {0})"
    for number in (0, 1):
        app.execute(part.format(number).encode())
    app.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 20) g")
    app.execute("ALTER TABLE docs ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON docs USING (id <= 5)")
    app.execute("DROP ROLE IF EXISTS swap_reader; CREATE ROLE swap_reader")
    app.execute("GRANT SELECT ON docs TO swap_reader")
    swapped = Swapped(either_url, app)
    try:
        with swapped.running() as worker:
            swapped.begin()
            swapped.filled(worker)
            swapped.show()
            app.execute("UPDATE docs_1 SET body = 'edited'")
            wait_fresh(worker)
            assert swapped.wrong(Wide) == []
            with psycopg.connect(either_url, autocommit=True) as reader:
                reader.execute("SET ROLE swap_reader")
                assert count(reader, "docs_embedded") == 5
                assert count(reader, "docs_embedding_2") == 5
    finally:
        app.execute("DROP OWNED BY swap_reader; DROP ROLE swap_reader")


def test_nothing_is_told_of_a_swap_that_another_began(swapped: Swapped) -> None:
    swapped.apply()
    with swapped.connection() as connection:
        found = editions.find(connection, swapped.declared)
        new = swap.proposed(found, {"model": OTHER})
        swap.begin(connection, found, new, ("public", "docs_embedded"))
        with pytest.raises(SchemaError, match="another swap of it has begun meanwhile"):
            swap.begin(connection, found, new, ("public", "docs_embedded"))


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
    assert served["docs"] is served[MODEL], "who names the sync gets the model that is shown"


@pytest.mark.parametrize("is_committed", [False, True])
def test_both_editions_follow_the_key_of_the_table(swapped: Swapped, is_committed: bool) -> None:
    with swapped.running() as worker:
        swapped.begin()
        swapped.filled(worker)
        if is_committed:
            swapped.show()
        swapped.app.execute("ALTER TABLE docs ALTER id TYPE bigint")
        worker.sweep()
        columns = "pg_attribute WHERE attname = 'id' AND attrelid = ANY (%s::regclass[])"
        kind = f"SELECT atttypid::regtype::text FROM {columns}"
        tables = ["docs_embedding", "docs_embedding_2", "docs_embedded"]
        wide = [("bigint",)] * 3
        until("both have followed", lambda: swapped.app.execute(kind, (tables,)).fetchall() == wide)
        edit(swapped.app, "wide ")
        until("all is right", lambda: swapped.is_right(Wide if is_committed else NullEncoder))
        wait_fresh(worker)
        swapped.show()
        assert swapped.wrong(NullEncoder if is_committed else Wide) == []


def test_an_edition_that_was_noted_by_an_older_version_is_the_same(swapped: Swapped) -> None:
    """It had fewer settings than this one has."""
    swapped.apply()
    swapped.begin()
    swapped.app.execute("UPDATE freshvec.edition SET declared = declared - 'where', file = file - 'where'")
    found = swapped.find()
    assert (found.note, found.is_refused, found.run[1].model) == ("", False, OTHER)
    assert swapped.begin() == found.other
