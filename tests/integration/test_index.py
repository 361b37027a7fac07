"""The index on the vectors: built after the backfill, beside all else; repaired, exchanged, dropped."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg
import pytest

from freshvec.db import connect
from freshvec.errors import SchemaError
from freshvec.records import Model, Tokens, Vector
from freshvec.schema.apply import apply, remove
from freshvec.schema.plan import plan
from freshvec.target import building, index
from freshvec.target.search import search
from tests.integration.at_rest import Kept
from tests.support import (
    MODEL,
    Connection,
    NullEncoder,
    backfill,
    bound_sync,
    exists,
    running,
    sync_of,
    until,
    wait_fresh,
)

HNSW = {"type": "hnsw"}
INDEXES = """
SELECT c.relname::text, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
 WHERE i.indrelid = to_regclass('docs_embedding') AND NOT i.indisprimary ORDER BY c.relname
"""


def indexes(app: Connection) -> dict[str, bool]:
    """The target's indexes on vectors, and whether each is valid."""
    return dict(app.execute(INDEXES).fetchall())


def is_built(app: Connection) -> bool:
    """Whether there is one index, and it is valid."""
    return list(indexes(app).values()) == [True]


def of(kept: Kept, **declared: Any) -> Kept:
    """The same table, its sync declared with that index; without one if none is given."""
    sync = sync_of("docs") | ({"index": declared} if declared else {})
    return Kept(kept.url, kept.app, sync, daemon={"sweep_seconds": 0.1})


def name_in(kept: Kept) -> str:
    with connect(kept.settings.database.url, "test") as connection:
        name = index.name_of(bound_sync(connection, kept.settings, NullEncoder()))
    assert name is not None
    return name


def oid_of(app: Connection, name: str) -> int:
    (oid,) = app.execute("SELECT to_regclass(%s)::oid", (name,)).fetchone() or (0,)
    return int(oid or 0)


@contextmanager
def held(url: str) -> Iterator[Connection]:
    """A transaction that has written to the target: no index is finished before it ends. Rows are written
    beside it."""
    with psycopg.connect(url) as session:
        session.execute("LOCK docs_embedding IN ROW EXCLUSIVE MODE")
        yield session


def builder(app: Connection) -> int | None:
    """The session that builds an index which the catalogue has already."""
    query = "SELECT pid FROM pg_stat_progress_create_index JOIN pg_class c ON c.oid = index_relid"
    row = app.execute(query).fetchone()
    return None if row is None else int(row[0])


@pytest.fixture(params=["url", "url16"])
def kept(request: pytest.FixtureRequest) -> Iterator[Kept]:
    """500 rows on Postgres 18 and 16."""
    url: str = request.getfixturevalue(request.param)
    with psycopg.connect(url, autocommit=True) as app:
        app.execute("CREATE TABLE docs (id bigint PRIMARY KEY, body text)")
        app.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 500) g")
        yield Kept(url, app)


def test_it_is_built_after_the_backfill_and_searches_use_it(kept: Kept) -> None:
    slow = NullEncoder(seconds_a_batch=0.05)
    declared = of(kept, m=8, ef_construction=32)
    declared.daemon |= {"page_rows": 50, "batch_tokens": 1000}
    early = []
    look = "SELECT backfill_done, (SELECT count(*) FROM freshvec.indexes) FROM freshvec.sync"
    with running(declared.settings, slow):
        until("the target is there", lambda: exists(kept.app, "docs_embedding"))

        def has_index() -> bool:
            is_over, count = kept.app.execute(look.encode()).fetchone() or (None, 0)
            early.append(not is_over and count > 0)
            return is_built(kept.app)

        until("there is an index", has_index)
    assert len(early) > 10, "it was looked at meanwhile"
    assert not any(early), "none is there before the backfill is done"
    (definition,) = kept.app.execute("SELECT definition FROM freshvec.indexes").fetchone() or ("",)
    assert "USING hnsw (embedding" in definition
    assert "m='8', ef_construction='32'" in definition
    kept.app.execute("SET enable_seqscan = off; SET enable_sort = off")
    query = "EXPLAIN SELECT id FROM docs_embedded ORDER BY embedding <=> %s::vector LIMIT 5"
    shown = "\n".join(line for (line,) in kept.app.execute(query, (str([1.0] * 8),)))
    assert "Index Scan using freshvec_docs_" in shown


def test_rows_are_kept_fresh_while_it_is_built(kept: Kept) -> None:
    backfill(of(kept).settings, NullEncoder())
    declared = of(kept, **HNSW)
    with held(kept.url), running(declared.settings, NullEncoder()) as worker:
        until("it is being built", lambda: builder(kept.app))
        for number in range(5):
            declared.edit(f"edited {number}")
            until(f"edits are followed, time {number}", lambda: not declared.wrong())
        wait_fresh(worker)
        assert list(indexes(kept.app).values()) == [False]
        shown = declared.status()
        assert shown["index_phase"] == "waiting for writers before build"
        assert (shown["index_name"], shown["index_valid"]) == (name_in(declared), False)
        waits = kept.app.execute("SELECT index_phase FROM freshvec.progress").fetchone()
        assert waits == ("waiting for writers before build",)
        locks = "SELECT mode FROM pg_locks WHERE relation = 'docs'::regclass AND pid = %s"
        assert kept.app.execute(locks, (builder(kept.app),)).fetchall() == [], "nothing of the application's"
    declared.close()
    until("it is built though the worker ended", lambda: is_built(kept.app))
    with declared.running():
        until("it serves", lambda: declared.status()["index_valid"])
        assert not declared.wrong()


def test_what_was_not_finished_is_dropped_and_built_again(kept: Kept) -> None:
    backfill(of(kept).settings, NullEncoder())
    declared = of(kept, **HNSW)
    with running(declared.settings, NullEncoder()):
        with held(kept.url):
            until("it is being built", lambda: builder(kept.app))
            before = oid_of(kept.app, name_in(declared))
            kept.app.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_progress_create_index")
            until("it was ended", lambda: builder(kept.app) is None)
            until("status says so", lambda: "index" in str(declared.status()["index_trouble"]))
        until("it is built", lambda: is_built(kept.app), 30)
        assert oid_of(kept.app, name_in(declared)) != before
        until("the trouble is over", lambda: declared.status()["index_trouble"] is None)
    declared.close()


def test_another_worker_goes_on_after_a_kill(kept: Kept) -> None:
    """As after kill -9: the session of the build lives on, and nobody builds a second time."""
    backfill(of(kept).settings, NullEncoder())
    declared = of(kept, **HNSW)
    with held(kept.url):
        with running(declared.settings, NullEncoder()):
            until("it is being built", lambda: builder(kept.app))
        before = builder(kept.app)
        assert before is not None, "it is the server's"
        with running(declared.settings, NullEncoder()) as worker:
            wait_fresh(worker)
            for _ in range(5):
                worker.sweep()
                declared.edit("while another builds")
                until("edits are followed", lambda: not declared.wrong())
            sessions = "SELECT count(*) FROM pg_stat_progress_create_index"
            assert kept.app.execute(sessions).fetchone() == (1,)
            assert builder(kept.app) == before
            with connect(declared.settings.database.url, "index") as session:
                bound = bound_sync(session, declared.settings, NullEncoder())
                assert not building.bring_about(session, bound), "another session is at it"
    until("it is built", lambda: is_built(kept.app))


def test_another_declaration_is_built_before_the_old_index_goes(kept: Kept) -> None:
    first, second = of(kept, **HNSW), of(kept, type="hnsw", m=5)
    backfill(first.settings, NullEncoder())
    old, new = name_in(first), name_in(second)
    assert indexes(kept.app) == {old: True}
    with running(second.settings, NullEncoder()):
        with held(kept.url):
            until("the new one is being built", lambda: builder(kept.app))
            assert indexes(kept.app) == {old: True, new: False}
        until("the new one has taken its place", lambda: indexes(kept.app) == {new: True})
    with running(of(kept).settings, NullEncoder()):
        until("what is declared no more is dropped", lambda: indexes(kept.app) == {})


def test_what_is_built_and_declared_no_more_is_ended(kept: Kept) -> None:
    backfill(of(kept).settings, NullEncoder())
    first, second = of(kept, **HNSW), of(kept, type="ivfflat", lists=5)
    with running(first.settings, NullEncoder()), held(kept.url):
        until("it is being built", lambda: builder(kept.app))
    with running(second.settings, NullEncoder()):
        until("only the new one is there", lambda: indexes(kept.app) == {name_in(second): True})


def test_an_index_of_the_users_own_serves_and_stays(kept: Kept) -> None:
    backfill(of(kept).settings, NullEncoder())
    kept.app.execute("CREATE INDEX mine ON docs_embedding USING hnsw (embedding vector_cosine_ops)")
    for declared in (of(kept, **HNSW), of(kept)):
        backfill(declared.settings, NullEncoder())
        assert indexes(kept.app) == {"mine": True}
    with connect(of(kept, **HNSW).settings.database.url, "test") as connection:
        bound = bound_sync(connection, of(kept, **HNSW).settings, NullEncoder())
        seen = index.look(connection, bound)
        assert seen is not None
        assert index.theirs(bound, seen) == "mine"
    other = of(kept, type="hnsw", distance="l2")
    backfill(other.settings, NullEncoder())
    assert indexes(kept.app) == {"mine": True, name_in(other): True}, "it serves other searches"
    kept.app.execute(f"ALTER INDEX {name_in(other)} RENAME TO ours_no_more")
    backfill(of(kept).settings, NullEncoder())
    assert indexes(kept.app) == {"mine": True, "ours_no_more": True}


def test_a_worker_that_may_not_says_the_command_and_the_owner_can(kept: Kept) -> None:
    declared = of(kept, **HNSW)
    backfill(of(kept).settings, NullEncoder())
    kept.app.execute("DROP ROLE IF EXISTS few")
    kept.app.execute("CREATE ROLE few LOGIN")
    model = Model(MODEL, 8, 256, NullEncoder.fingerprint)
    with connect(declared.settings.database.url, "apply") as connection:
        bound, _ = apply(connection, declared.settings.sync[0], model, "few")
    database = {"url": kept.url.replace("postgres:@", "few@"), "worker_role": "few"}
    restricted = declared.settings.model_validate(
        {**declared.settings.model_dump(exclude={"database"}), "database": database}
    )
    try:
        with running(restricted, NullEncoder()):
            until("status says it", lambda: declared.status()["index_trouble"])
            said = declared.status()["index_trouble"]
            assert "may not build the index of public.docs_embedding" in said
            assert "freshvec apply docs" in said
            assert declared.is_right(), "rows are kept all the same"
            with connect(declared.settings.database.url, "index") as session:
                assert building.bring_about(session, bound)
            until("the trouble is over", lambda: declared.status()["index_trouble"] is None)
            command = said.split("or: ")[1]
            assert command.startswith("CREATE INDEX CONCURRENTLY")
        kept.app.execute(f"DROP INDEX {name_in(declared)}")
        kept.app.execute(command.encode())
        assert indexes(kept.app) == {name_in(declared): True}
    finally:
        declared.close()
        kept.app.execute("DROP OWNED BY few")
        kept.app.execute("DROP ROLE few")


@contextmanager
def snapshot(url: str) -> Iterator[Connection]:
    """A transaction that looks at the database as it was: no index is valid before it ends. It holds no
    lock."""
    with psycopg.connect(url) as session:
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        session.execute("SELECT 1")
        yield session


def test_a_build_makes_way_for_a_change_of_the_target(kept: Kept) -> None:
    backfill(of(kept).settings, NullEncoder())
    declared = of(kept, **HNSW)
    with running(declared.settings, NullEncoder()) as worker:
        with snapshot(kept.url):
            until("it is being built", lambda: builder(kept.app))
            kept.app.execute("ALTER TABLE docs ALTER id TYPE numeric")
            worker.sweep()
            until("rows are followed", lambda: not declared.wrong())
            retyped = "SELECT atttypid = 'numeric'::regtype FROM pg_attribute WHERE attname = 'id'"
            target = f"{retyped} AND attrelid = 'docs_embedding'::regclass"
            until("the target has changed", lambda: kept.app.execute(target).fetchone() == (True,))
        until("it is built again", lambda: is_built(kept.app))
    declared.close()


def test_a_build_makes_way_for_remove(kept: Kept) -> None:
    backfill(of(kept).settings, NullEncoder())
    declared = of(kept, **HNSW)
    with snapshot(kept.url):
        with running(declared.settings, NullEncoder()):
            until("it is being built", lambda: builder(kept.app))
        assert builder(kept.app), "the worker's end is not the build's"
        with connect(declared.settings.database.url, "remove") as connection:
            assert remove(connection, "docs", 5.0)
    assert not exists(kept.app, "docs_embedding")


class SignedEncoder(NullEncoder):
    """Its numbers have both signs, so that their bits tell something."""

    def encode(self, batch: list[Tokens]) -> Vector:
        vectors = super().encode(batch)
        vectors -= vectors.mean()
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


@pytest.mark.parametrize(
    ("kind", "declared", "operators"),
    [
        ("vector", {"type": "hnsw", "distance": "l2"}, "vector_l2_ops"),
        ("vector", {"type": "hnsw", "distance": "ip"}, "vector_ip_ops"),
        ("halfvec", {"type": "hnsw"}, "halfvec_cosine_ops"),
        ("halfvec", {"type": "ivfflat"}, "halfvec_cosine_ops"),
        ("vector", {"type": "ivfflat", "lists": 7}, "vector_cosine_ops"),
        ("vector", {"type": "hnsw", "binary": True}, "bit_hamming_ops"),
        ("halfvec", {"type": "ivfflat", "binary": True}, "bit_hamming_ops"),
    ],
)
def test_a_search_of_ours_uses_every_kind(
    kept: Kept, kind: str, declared: dict[str, Any], operators: str
) -> None:
    kept.sync = sync_of("docs", target={"type": kind}, index=declared)
    encoder = SignedEncoder()
    backfill(kept.settings, encoder)
    assert is_built(kept.app)
    (definition,) = kept.app.execute("SELECT definition FROM freshvec.indexes").fetchone() or ("",)
    assert operators in definition
    (query,) = encoder.encode(encoder.tokenize([f"text {n}" for n in range(1, 501)]))[76:77]
    with connect(kept.settings.database.url, "test") as connection:
        bound = bound_sync(connection, kept.settings, NullEncoder())
        connection.execute("SET enable_sort = off")
        hits = search(connection, bound, query, 3)
    assert (hits[0].key, hits[0].text) == (("77",), "text 77")
    assert hits[0].similarity > 0.999

    def scans() -> int:
        (number,) = kept.app.execute(
            "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname LIKE 'freshvec%'"
        ).fetchone() or (0,)
        return int(number)

    until("the index has served it", scans, 10)


def test_a_backfill_by_hand_drops_it_where_told_and_builds_it(kept: Kept) -> None:
    declared = of(kept, **HNSW)
    backfill(declared.settings, NullEncoder())
    before = oid_of(kept.app, name_in(declared))
    kept.app.execute("CREATE INDEX mine ON docs_embedding USING hnsw (embedding vector_l2_ops)")
    with connect(declared.settings.database.url, "backfill") as connection:
        assert building.drop_ours(connection, "docs") == [name_in(declared)]
    assert indexes(kept.app) == {"mine": True}
    backfill(declared.settings, NullEncoder())
    assert oid_of(kept.app, name_in(declared)) not in (0, before)


def test_it_is_dropped_while_another_model_encodes_where_that_is_declared(kept: Kept) -> None:
    class Other(NullEncoder):
        fingerprint = b"another encoder!"

    declared = of(kept, type="hnsw", rebuild=True)
    backfill(declared.settings, NullEncoder())
    kept.app.execute("ANALYZE docs_embedding")
    before = oid_of(kept.app, name_in(declared))
    declared.daemon |= {"page_rows": 20, "batch_tokens": 400, "commit_every_batches": 1}
    with running(declared.settings, Other(seconds_a_batch=0.1)) as worker:
        until("it is dropped", lambda: indexes(kept.app) == {})
        assert kept.app.execute("SELECT backfill_done FROM freshvec.sync").fetchone() == (False,)
        wait_fresh(worker)
        until("it is built at the end", lambda: is_built(kept.app))
    assert oid_of(kept.app, name_in(declared)) != before


def test_more_dimensions_than_can_be_indexed(kept: Kept) -> None:
    def refused(dimension: int, kind: str, **declared: Any) -> str:
        settings = Kept(kept.url, kept.app, sync_of("docs", target={"type": kind}, index=declared)).settings
        model = Model(MODEL, dimension, 256, NullEncoder.fingerprint)
        with connect(settings.database.url, "plan") as connection:
            try:
                plan(connection, settings.sync[0], model)
            except SchemaError as error:
                return str(error)
        return ""

    assert "indexes at most 2,000 of type vector" in refused(2001, "vector")
    assert 'Write target = { type = "halfvec" } or binary = true in index or no index.' in refused(
        2001, "vector"
    )
    assert "at most 4,000 of type halfvec" in refused(4001, "halfvec")
    assert "Write binary = true in index or no index." in refused(4001, "halfvec")
    assert refused(2000, "vector") == refused(4000, "halfvec") == refused(4001, "halfvec", binary=True) == ""
