"""Swaps: another set of vectors is filled beside the old one, shown, taken back, and taken away."""

import psycopg
import pytest

from freshvec.db import LOCK_CLASS, MIGRATE_LOCK
from freshvec.errors import SchemaError
from freshvec.schema import editions, migrations
from freshvec.schema.apply import remove
from freshvec.schema.plan import plan
from tests.integration.swapping import Swapped, Wide, edit, model
from tests.support import MODEL, Connection, NullEncoder, count, exists, until, wait_fresh


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


def test_what_is_taken_away_waits_for_nobody(swapped: Swapped) -> None:
    """Somebody applies, which may take long: the worker goes on meanwhile."""
    with swapped.running() as worker:
        swapped.begin()
        swapped.filled(worker)
        swapped.show()
        swapped.app.execute("SELECT pg_advisory_lock(%s, %s)", (LOCK_CLASS, MIGRATE_LOCK))
        swapped.app.execute("UPDATE freshvec.edition SET kept_until = now() WHERE NOT is_shown")
        worker.sweep()
        until("it keeps it no more", lambda: len(worker.keepers) == 1)
        swapped.app.execute('DROP TRIGGER "freshvec_docs.2_update" ON docs')
        worker.sweep()
        seen = "pg_trigger WHERE tgname = 'freshvec_docs.2_update'"
        until("it has looked at the other one", lambda: count(swapped.app, seen), 20)
        assert exists(swapped.app, "docs_embedding")
        swapped.app.execute("SELECT pg_advisory_unlock_all()")
        worker.sweep()
        until("it is gone", lambda: not exists(swapped.app, "docs_embedding"))


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
