"""The index on the vectors: built after the backfill, beside all else; repaired, exchanged, dropped."""

from freshvec.db import connect
from freshvec.schema.apply import remove
from freshvec.target import building, index
from tests.integration.at_rest import Kept
from tests.integration.indexing import HNSW, builder, held, indexes, is_built, name_in, of, oid_of, snapshot
from tests.support import NullEncoder, backfill, bound_sync, exists, running, until, wait_fresh


def test_it_is_built_after_the_backfill_and_searches_use_it(many: Kept) -> None:
    slow = NullEncoder(seconds_a_batch=0.05)
    declared = of(many, m=8, ef_construction=32)
    declared.daemon |= {"page_rows": 50, "batch_tokens": 1000}
    early = []
    look = "SELECT backfill_done, (SELECT count(*) FROM freshvec.indexes) FROM freshvec.sync"
    with running(declared.settings, slow):
        until("the target is there", lambda: exists(many.app, "docs_embedding"))

        def has_index() -> bool:
            is_over, count = many.app.execute(look.encode()).fetchone() or (None, 0)
            early.append(not is_over and count > 0)
            return is_built(many.app)

        until("there is an index", has_index)
    assert len(early) > 10, "it was looked at meanwhile"
    assert not any(early), "none is there before the backfill is done"
    (definition,) = many.app.execute("SELECT definition FROM freshvec.indexes").fetchone() or ("",)
    assert "USING hnsw (embedding" in definition
    assert "m='8', ef_construction='32'" in definition
    many.app.execute("SET enable_seqscan = off; SET enable_sort = off")
    query = "EXPLAIN SELECT id FROM docs_embedded ORDER BY embedding <=> %s::vector LIMIT 5"
    shown = "\n".join(line for (line,) in many.app.execute(query, (str([1.0] * 8),)))
    assert "Index Scan using freshvec_docs_" in shown


def test_rows_are_kept_fresh_while_it_is_built(many: Kept) -> None:
    backfill(of(many).settings, NullEncoder())
    declared = of(many, **HNSW)
    with held(many.url), running(declared.settings, NullEncoder()) as worker:
        until("it is being built", lambda: builder(many.app))
        for number in range(5):
            declared.edit(f"edited {number}")
            until(f"edits are followed, time {number}", lambda: not declared.wrong())
        wait_fresh(worker)
        assert list(indexes(many.app).values()) == [False]
        shown = declared.status()
        assert shown["index_phase"] == "waiting for writers before build"
        assert (shown["index_name"], shown["index_valid"]) == (name_in(declared), False)
        waits = many.app.execute("SELECT index_phase FROM freshvec.progress").fetchone()
        assert waits == ("waiting for writers before build",)
        locks = "SELECT mode FROM pg_locks WHERE relation = 'docs'::regclass AND pid = %s"
        assert many.app.execute(locks, (builder(many.app),)).fetchall() == [], "nothing of the application's"
    declared.close()
    until("it is built though the worker ended", lambda: is_built(many.app))
    with declared.running():
        until("it serves", lambda: declared.status()["index_valid"])
        assert not declared.wrong()


def test_what_was_not_finished_is_dropped_and_built_again(many: Kept) -> None:
    backfill(of(many).settings, NullEncoder())
    declared = of(many, **HNSW)
    with running(declared.settings, NullEncoder()):
        with held(many.url):
            until("it is being built", lambda: builder(many.app))
            before = oid_of(many.app, name_in(declared))
            many.app.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_progress_create_index")
            until("it was ended", lambda: builder(many.app) is None)
            until("status says so", lambda: "index" in str(declared.status()["index_trouble"]))
        until("it is built", lambda: is_built(many.app), 30)
        assert oid_of(many.app, name_in(declared)) != before
        until("the trouble is over", lambda: declared.status()["index_trouble"] is None)
    declared.close()


def test_another_worker_goes_on_after_a_kill(many: Kept) -> None:
    """As after kill -9: the session of the build lives on, and nobody builds a second time."""
    backfill(of(many).settings, NullEncoder())
    declared = of(many, **HNSW)
    with held(many.url):
        with running(declared.settings, NullEncoder()):
            until("it is being built", lambda: builder(many.app))
        before = builder(many.app)
        assert before is not None, "it is the server's"
        with running(declared.settings, NullEncoder()) as worker:
            wait_fresh(worker)
            for _ in range(5):
                worker.sweep()
                declared.edit("while another builds")
                until("edits are followed", lambda: not declared.wrong())
            sessions = "SELECT count(*) FROM pg_stat_progress_create_index"
            assert many.app.execute(sessions).fetchone() == (1,)
            assert builder(many.app) == before
            with connect(declared.settings.database.url, "index") as session:
                bound = bound_sync(session, declared.settings, NullEncoder())
                assert not building.bring_about(session, bound), "another session is at it"
    until("it is built", lambda: is_built(many.app))


def test_another_declaration_is_built_before_the_old_index_goes(many: Kept) -> None:
    first, second = of(many, **HNSW), of(many, type="hnsw", m=5)
    backfill(first.settings, NullEncoder())
    old, new = name_in(first), name_in(second)
    assert indexes(many.app) == {old: True}
    with running(second.settings, NullEncoder()):
        with held(many.url):
            until("the new one is being built", lambda: builder(many.app))
            assert indexes(many.app) == {old: True, new: False}
        until("the new one has taken its place", lambda: indexes(many.app) == {new: True})
    with running(of(many).settings, NullEncoder()):
        until("what is declared no more is dropped", lambda: indexes(many.app) == {})


def test_what_is_built_and_declared_no_more_is_ended(many: Kept) -> None:
    backfill(of(many).settings, NullEncoder())
    first, second = of(many, **HNSW), of(many, type="ivfflat", lists=5)
    with snapshot(many.url):
        with running(first.settings, NullEncoder()):
            until("it is being built", lambda: builder(many.app))
        with running(second.settings, NullEncoder()):
            wanted = {name_in(second): False}
            until("the other one is being built instead", lambda: indexes(many.app) == wanted)
    until("only that one is there", lambda: indexes(many.app) == {name_in(second): True})


def test_an_index_of_the_users_own_serves_and_stays(many: Kept) -> None:
    backfill(of(many).settings, NullEncoder())
    many.app.execute("CREATE INDEX mine ON docs_embedding USING hnsw (embedding vector_cosine_ops)")
    for declared in (of(many, **HNSW), of(many)):
        backfill(declared.settings, NullEncoder())
        assert indexes(many.app) == {"mine": True}
    with connect(of(many, **HNSW).settings.database.url, "test") as connection:
        bound = bound_sync(connection, of(many, **HNSW).settings, NullEncoder())
        seen = index.look(connection, bound)
        assert seen is not None
        assert index.theirs(bound, seen) == "mine"
    other = of(many, type="hnsw", distance="l2")
    backfill(other.settings, NullEncoder())
    assert indexes(many.app) == {"mine": True, name_in(other): True}, "it serves other searches"
    many.app.execute(f"ALTER INDEX {name_in(other)} RENAME TO ours_no_more")
    backfill(of(many).settings, NullEncoder())
    assert indexes(many.app) == {"mine": True, "ours_no_more": True}


def test_a_build_makes_way_for_a_change_of_the_target(many: Kept) -> None:
    backfill(of(many).settings, NullEncoder())
    declared = of(many, **HNSW)
    with running(declared.settings, NullEncoder()) as worker:
        with snapshot(many.url):
            until("it is being built", lambda: builder(many.app))
            many.app.execute("ALTER TABLE docs ALTER id TYPE numeric")
            worker.sweep()
            until("rows are followed", lambda: not declared.wrong())
            retyped = "SELECT atttypid = 'numeric'::regtype FROM pg_attribute WHERE attname = 'id'"
            target = f"{retyped} AND attrelid = 'docs_embedding'::regclass"
            until("the target has changed", lambda: many.app.execute(target).fetchone() == (True,))
        until("it is built again", lambda: is_built(many.app))
    declared.close()


def test_a_build_makes_way_for_remove(many: Kept) -> None:
    backfill(of(many).settings, NullEncoder())
    declared = of(many, **HNSW)
    with snapshot(many.url):
        with running(declared.settings, NullEncoder()):
            until("it is being built", lambda: builder(many.app))
        assert builder(many.app), "the worker's end is not the build's"
        with connect(declared.settings.database.url, "remove") as connection:
            assert remove(connection, "docs", 5.0)
    assert not exists(many.app, "docs_embedding")
