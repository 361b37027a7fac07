"""Every kind of index that can be declared, who may build it, and when it is dropped for a while."""

from typing import Any

import numpy as np
import pytest

from freshvec.db import connect
from freshvec.errors import DatabaseError, SchemaError
from freshvec.records import Model, Tokens, Vector
from freshvec.schema.apply import apply
from freshvec.schema.plan import plan
from freshvec.target import building
from freshvec.target.search import search
from tests.integration.at_rest import Kept
from tests.integration.indexing import HNSW, indexes, is_built, name_in, of, oid_of
from tests.support import MODEL, NullEncoder, backfill, bound_sync, running, sync_of, until, wait_fresh


class SignedEncoder(NullEncoder):
    """Its numbers have many signs, so that their bits tell something."""

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
    many: Kept, kind: str, declared: dict[str, Any], operators: str
) -> None:
    many.sync = sync_of("docs", target={"type": kind}, index=declared)
    encoder = SignedEncoder()
    backfill(many.settings, encoder)
    assert is_built(many.app)
    (definition,) = many.app.execute("SELECT definition FROM freshvec.indexes").fetchone() or ("",)
    assert operators in definition
    (query,) = encoder.encode(encoder.tokenize([f"text {n}" for n in range(1, 501)]))[76:77]
    with connect(many.settings.database.url, "test") as connection:
        bound = bound_sync(connection, many.settings, NullEncoder())
        connection.execute("SET enable_sort = off")
        hits = search(connection, bound, query, 3)
    assert (hits[0].key, hits[0].text) == (("77",), "text 77")
    assert hits[0].similarity > 0.999

    def scans() -> int:
        (number,) = many.app.execute(
            "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname LIKE 'freshvec%'"
        ).fetchone() or (0,)
        return int(number)

    until("the index has served it", scans)


def test_a_backfill_by_hand_drops_it_where_told_and_builds_it(many: Kept) -> None:
    declared = of(many, **HNSW)
    backfill(declared.settings, NullEncoder())
    before = oid_of(many.app, name_in(declared))
    many.app.execute("CREATE INDEX mine ON docs_embedding USING hnsw (embedding vector_l2_ops)")
    with connect(declared.settings.database.url, "backfill") as connection:
        assert building.drop_ours(connection, "docs") == [name_in(declared)]
    assert indexes(many.app) == {"mine": True}
    backfill(declared.settings, NullEncoder())
    assert oid_of(many.app, name_in(declared)) not in (0, before)


def test_it_is_dropped_while_another_model_encodes_where_that_is_declared(many: Kept) -> None:
    class Other(NullEncoder):
        fingerprint = b"another encoder!"

    declared = of(many, type="hnsw", rebuild=True)
    backfill(declared.settings, NullEncoder())
    many.app.execute("ANALYZE docs_embedding")
    before = oid_of(many.app, name_in(declared))
    declared.daemon |= {"page_rows": 20, "batch_tokens": 400, "commit_every_batches": 1}
    with running(declared.settings, Other(seconds_a_batch=0.1)) as worker:
        until("it is dropped", lambda: indexes(many.app) == {})
        assert many.app.execute("SELECT backfill_done FROM freshvec.sync").fetchone() == (False,)
        wait_fresh(worker)
        until("it is built at the end", lambda: is_built(many.app))
    assert oid_of(many.app, name_in(declared)) != before


def test_more_dimensions_than_can_be_indexed(many: Kept) -> None:
    def refused(dimension: int, kind: str, **declared: Any) -> str:
        settings = Kept(many.url, many.app, sync_of("docs", target={"type": kind}, index=declared)).settings
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


def test_a_worker_that_may_not_says_the_command_and_the_owner_can(many: Kept) -> None:
    declared = of(many, **HNSW)
    backfill(of(many).settings, NullEncoder())
    many.app.execute("DROP ROLE IF EXISTS few")
    many.app.execute("CREATE ROLE few LOGIN")
    model = Model(MODEL, 8, 256, NullEncoder.fingerprint)
    with connect(declared.settings.database.url, "apply") as connection:
        bound, _ = apply(connection, declared.settings.sync[0], model, "few")
    database = {"url": many.url.replace("postgres:@", "few@"), "worker_role": "few"}
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
        many.app.execute(f"DROP INDEX {name_in(declared)}")
        many.app.execute(command.encode())
        assert indexes(many.app) == {name_in(declared): True}
    finally:
        declared.close()
        many.app.execute("DROP OWNED BY few")
        many.app.execute("DROP ROLE few")


def test_a_pgvector_that_is_too_old_is_named(many: Kept) -> None:
    """One that lacks the operator class."""
    operators = "OPERATOR CLASS vector_cosine_ops USING hnsw"
    many.app.execute(f"ALTER EXTENSION vector DROP {operators}; DROP {operators}")
    many.sync = sync_of("docs", index=HNSW)
    with pytest.raises(DatabaseError, match="ALTER EXTENSION vector UPDATE"):
        backfill(many.settings, NullEncoder())
    assert not many.wrong(), "the rows are there all the same"
    with many.running():
        until("status says it", lambda: "Upgrade pgvector" in str(many.status()["index_trouble"]))
        assert many.is_right()
