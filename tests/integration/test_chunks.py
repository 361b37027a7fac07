"""Texts cut into passages: a vector each, kept as fresh as whole texts are."""

from typing import Any

import psycopg
import pytest

from freshvec.config import Settings
from freshvec.db import connect
from freshvec.encoding.loading import Models
from freshvec.errors import SchemaError
from freshvec.records import Fate, Model, Outcome, Passage
from freshvec.scans.verify import WRONG_VECTOR, verify, verify_vectors
from freshvec.schema import migrations
from freshvec.schema.apply import apply
from freshvec.schema.plan import plan
from freshvec.target import layout
from freshvec.target.search import search
from tests.passages import OVERLAP, SPECIAL, TOKENS, WordEncoder, prose, stale_passages
from tests.support import (
    MODEL,
    Connection,
    NullEncoder,
    backfill,
    bound_sync,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
)

NULL = Model(MODEL, 8, 256, NullEncoder.fingerprint)


def settings_of(url: str, **more: Any) -> Settings:
    return settings_for(url, sync_of("docs", chunk={"tokens": TOKENS, "overlap": OVERLAP}, **more))


def wrong(docs: Connection, encoder: WordEncoder) -> list[str]:
    return stale_passages(docs, encoder, TOKENS, OVERLAP)


def fill(docs: Connection, rows: int = 20, paragraphs: int = 12) -> None:
    for key in range(rows):
        docs.execute("INSERT INTO docs VALUES (%s, %s)", (key, prose(paragraphs, key)))


def test_a_table_is_cut_and_encoded(url: str, docs: Connection) -> None:
    fill(docs)
    docs.execute("INSERT INTO docs VALUES (100, ''), (101, NULL), (102, 'one word')")
    encoder = WordEncoder()
    backfill(settings_of(url), encoder)
    assert wrong(docs, encoder) == []
    assert docs.execute("SELECT count(*), min(passages) FROM docs_embedding").fetchone() == (21, 1)
    rows = docs.execute(
        "SELECT bool_and(passage = substr(body, chunk_start + 1, chunk_end - chunk_start)), count(*) > 100"
        " FROM docs_embedded JOIN docs USING (id)"
    ).fetchone()
    assert rows == (True, True)


def test_live_changes_encode_what_they_change(url: str, docs: Connection) -> None:
    fill(docs, rows=3, paragraphs=120)
    encoder = WordEncoder()
    backfill(settings_of(url), encoder)  # by another worker: this one remembers no vectors of it
    with running(settings_of(url), encoder) as worker:
        wait_fresh(worker)
        assert wrong(docs, encoder) == []
        for edit in (
            "UPDATE docs SET body = regexp_replace(body, '[.] ', '. Another word. ') WHERE id = 1",
            "UPDATE docs SET body = 'Before it all.' || chr(10) || chr(10) || body WHERE id = 1",
            "UPDATE docs SET body = body || ' At the end.' WHERE id = 1",
        ):
            before = encoder.encoded
            numbers = "SELECT array_agg(chunk ORDER BY chunk_start) FROM docs_chunk WHERE id = 1"
            (kept,) = docs.execute(numbers).fetchone() or ([],)
            docs.execute(edit)
            wait_fresh(worker)
            assert encoder.encoded - before <= 3
            (now,) = docs.execute(numbers).fetchone() or ([],)
            assert len(set(kept) & set(now)) >= len(kept) - 3, "passages keep their numbers"
            assert wrong(docs, encoder) == []
        docs.execute("UPDATE docs SET body = NULL WHERE id = 1")
        docs.execute("DELETE FROM docs WHERE id = 2")
        wait_fresh(worker)
        assert wrong(docs, encoder) == []
        assert docs.execute("SELECT array_agg(DISTINCT id) FROM docs_chunk").fetchone() == ([0],)


def test_wrong_vectors_are_found_and_made_anew(url: str, docs: Connection) -> None:
    fill(docs)
    encoder, settings = WordEncoder(), settings_of(url)
    backfill(settings, encoder)
    docs.execute("SET freshvec.is_ours = on")
    docs.execute("UPDATE docs_chunk SET embedding = '[1,0,0,0,0,0,0,0]' WHERE id IN (3, 7)")
    docs.execute("RESET freshvec.is_ours")
    dispatcher = Models(settings).dispatcher(MODEL, encoder)
    with connect(settings.database.url, "test") as connection:
        bound = bound_sync(connection, settings, encoder)
        report = verify(connection, bound)
        assert report.is_fresh, "hashes cannot tell"
        verify_vectors(connection, bound, dispatcher, report, 300, repair=True)
    dispatcher.stop(timeout=2.0)
    assert report.problems == {WRONG_VECTOR: 2}
    with running(settings, encoder) as worker:
        wait_fresh(worker)
        assert wrong(docs, encoder) == []


def test_a_search_gives_rows_with_their_best_passages(url: str, docs: Connection) -> None:
    fill(docs)
    encoder, settings = WordEncoder(), settings_of(url, index={"type": "hnsw"})
    backfill(settings, encoder)
    with connect(settings.database.url, "test") as connection:
        bound = bound_sync(connection, settings, encoder)
        query = "SELECT passage, id FROM docs_embedded WHERE id = 5 LIMIT 1"
        ((passage, key),) = docs.execute(query).fetchall()
        hits = search(connection, bound, encoder.encode(encoder.tokenize([passage]))[0], 10, width=10_000)
    assert (hits[0].key, hits[0].text) == ((str(key),), passage)
    assert hits[0].similarity > 0.999
    assert len({hit.key for hit in hits}) == len(hits) == 10


def test_the_view_is_searched_by_the_index(url: str, docs: Connection) -> None:
    fill(docs, rows=60)
    backfill(settings_of(url, index={"type": "hnsw"}), WordEncoder())
    docs.execute("ANALYZE docs, docs_embedding, docs_chunk")
    docs.execute("SET enable_seqscan = off")
    query = "SELECT id, passage FROM docs_embedded ORDER BY embedding <=> '[1,2,3,4,5,6,7,8]' LIMIT 5"
    plan = "\n".join(row[0] for row in docs.execute(f"EXPLAIN {query}"))
    assert "Index Scan using freshvec_docs_" in plan, plan


def test_rows_are_found_by_their_best_passages_in_sql(url: str, docs: Connection) -> None:
    fill(docs)
    backfill(settings_of(url), WordEncoder())
    docs.execute("SET search_path = public")
    for key in (3, 11):
        last = "SELECT embedding::text, passage FROM docs_embedded WHERE id = %s ORDER BY chunk_start DESC"
        vector, passage = docs.execute(last, (key,)).fetchall()[0]
        nearest = "SELECT id, passage, distance FROM freshvec.nearest_docs(%s::text::vector, 5)"
        found = docs.execute(nearest, (vector,)).fetchall()
        assert found[0][:2] == (key, passage)
        assert len({row[0] for row in found}) == 5
        assert [row[2] for row in found] == sorted(row[2] for row in found)


def test_cut_otherwise_every_row_is_cut_again(url: str, docs: Connection) -> None:
    fill(docs)
    encoder = WordEncoder()
    backfill(settings_of(url), encoder)
    whole = settings_for(url, sync_of("docs", chunk="auto"))
    backfill(whole, encoder)
    assert stale_passages(docs, encoder, encoder.max_tokens - SPECIAL) == []


def test_what_others_do_to_passages_is_mended(url: str, docs: Connection) -> None:
    fill(docs)
    encoder = WordEncoder()
    with running(settings_of(url), encoder) as worker:
        wait_fresh(worker)
        for change in (
            "DELETE FROM docs_chunk WHERE id = 3",
            "UPDATE docs_chunk SET embedding = '[1,0,0,0,0,0,0,0]' WHERE id = 4",
            "UPDATE docs_chunk SET chunk_start = 1, chunk_end = 2 WHERE id = 5",
            "INSERT INTO docs_chunk SELECT id, chunk + 1000, 0, 1, content_hash, embedding FROM docs_chunk"
            " WHERE id = 6",
            "DELETE FROM docs_embedding WHERE id = 7",
            "TRUNCATE docs_chunk",
        ):
            docs.execute(change)
            until(f"{change}: mended", lambda: wrong(docs, encoder) == [], 30)
        docs.execute("DROP TABLE docs_chunk CASCADE")
        until("made anew", lambda: is_there(docs) and wrong(docs, encoder) == [], 60)


def is_there(docs: Connection) -> bool:
    return docs.execute("SELECT to_regclass('docs_chunk') IS NOT NULL").fetchone() == (True,)


def test_a_text_that_is_refused_has_an_error_and_no_passages(url: str, docs: Connection) -> None:
    fill(docs, rows=3)
    encoder = WordEncoder(refuse="forbidden")
    with running(settings_of(url), encoder) as worker:
        wait_fresh(worker)
        docs.execute("UPDATE docs SET body = body || ' forbidden' WHERE id = 1")
        wait_fresh(worker)
        state = "SELECT passages, encode_error IS NOT NULL FROM docs_embedding WHERE id = 1"
        assert docs.execute(state).fetchone() == (None, True)
        assert docs.execute("SELECT count(*) FROM docs_chunk WHERE id = 1").fetchone() == (0,)
        docs.execute("UPDATE docs SET body = replace(body, 'forbidden', 'allowed') WHERE id = 1")
        wait_fresh(worker)
        assert wrong(docs, encoder) == []


@pytest.mark.parametrize("then", [{}, {"chunk": {"tokens": 1000}}])
def test_what_cannot_be_is_refused(url: str, docs: Connection, then: dict[str, Any]) -> None:
    backfill(settings_of(url), WordEncoder())
    with connect(settings_of(url).database.url, "test") as connection:
        settings = settings_for(url, sync_of("docs", **then))
        with pytest.raises(
            SchemaError,
            match=r"vectors are of passages, and|reads 256 at most",
        ):
            plan(connection, settings.sync[0], NULL)


def test_partitions_row_security_and_a_worker_with_few_rights(either_url: str, app: Connection) -> None:
    app.execute(
        "CREATE TABLE docs (region text, id numeric, body text, PRIMARY KEY (region, id))"
        " PARTITION BY HASH (region, id)"
    )
    part = "CREATE TABLE docs_{0} PARTITION OF docs FOR VALUES WITH (MODULUS 2, REMAINDER {0})"
    for number in (0, 1):
        app.execute(part.format(number).encode())
    for key in range(10):
        app.execute("INSERT INTO docs VALUES ('eu', %s, %s)", (key, prose(10, key)))
    app.execute("ALTER TABLE docs ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON docs USING (id <= 2)")
    roles = ("chunk_reader", "chunk_worker LOGIN BYPASSRLS")
    for role in roles:
        app.execute(f"DROP ROLE IF EXISTS {role.split()[0]}; CREATE ROLE {role}".encode())
    app.execute("GRANT SELECT ON docs TO chunk_reader")
    declared = settings_of(either_url)
    with connect(declared.database.url, "apply") as connection:
        migrations.migrate(connection)
        apply(connection, declared.sync[0], NULL, "chunk_worker")
    url = either_url.replace("postgres:@", "chunk_worker@")
    try:
        with running(settings_of(url), WordEncoder()) as worker:
            wait_fresh(worker)
            edit = "UPDATE docs SET id = id * 1.00, body = %s || body WHERE id = %s"
            app.execute(edit.encode(), ("At the beginning. ", 1))
            app.execute("UPDATE docs SET region = 'us' WHERE id = 2")
            wait_fresh(worker)
            fits = (
                "SELECT bool_and(passage = substr(body, chunk_start + 1, chunk_end - chunk_start)),"
                " count(DISTINCT id), max(region) FROM docs_embedded JOIN docs USING (region, id)"
            )
            assert app.execute(fits.encode()).fetchone() == (True, 10, "us")
            with psycopg.connect(either_url, autocommit=True) as reader:
                reader.execute("SET ROLE chunk_reader")
                for relation in ("docs_embedded", "docs_chunk"):
                    seen = reader.execute(f"SELECT count(DISTINCT id) FROM {relation}".encode()).fetchone()
                    assert seen == (3,)
    finally:
        for role in roles:
            app.execute(f"DROP OWNED BY {role.split()[0]}; DROP ROLE {role.split()[0]}".encode())


@pytest.mark.parametrize("key", ["chunk", "passage", "distance", "wanted", "vector_hash", "query"])
def test_a_key_may_have_any_name_that_its_layout_does_not_need(url: str, docs: Connection, key: str) -> None:
    docs.execute(f"ALTER TABLE docs RENAME COLUMN id TO {key}".encode())
    backfill(settings_for(url, sync_of("docs")), WordEncoder())
    with connect(settings_of(url).database.url, "test") as connection:
        cut = settings_for(url, sync_of("docs", target={"table": "cut_embedding"}, chunk="auto"))
        if key in ("vector_hash", "query"):
            plan(connection, cut.sync[0].model_copy(update={"name": "other"}), NULL)
        else:
            with pytest.raises(SchemaError, match="has a name that freshvec needs itself"):
                plan(connection, cut.sync[0], NULL)


def test_the_walk_that_proves_mends_a_passage(url: str, docs: Connection) -> None:
    fill(docs, rows=5)
    encoder = WordEncoder()
    backfill(settings_of(url), encoder)
    docs.execute("SET freshvec.is_ours = on")
    docs.execute("UPDATE docs_chunk SET embedding = '[0,1,0,0,0,0,0,0]' WHERE id = 4")
    docs.execute("UPDATE freshvec.sync SET proven_at = now() - interval '2 days'")
    docs.execute("RESET freshvec.is_ours")
    seen = "SELECT proven_found FROM freshvec.sync WHERE proven_at > now() - interval '1 day'"
    with running(settings_of(url), encoder):
        until("the walk ends", lambda: docs.execute(seen).fetchone() is not None)
    ((found,),) = docs.execute(seen).fetchall()
    assert found == 1, "one passage of each row is drawn"
    spoilt = "SELECT count(*) FROM docs_chunk WHERE id = 4 AND embedding <> '[0,1,0,0,0,0,0,0]'"
    assert docs.execute(spoilt).fetchone() == (1,), "and mended alone"


def test_a_refused_reading_of_the_same_fence_writes_no_passage(url: str, docs: Connection) -> None:
    """As a page from a replica may be, which shows what the row was before."""
    fill(docs, 1)
    encoder, settings = WordEncoder(), settings_of(url)
    backfill(settings, encoder)
    (fence,) = docs.execute("SELECT fence FROM docs_embedding").fetchone() or (0,)
    passage = Passage(0, 9, b"of older passage", encoder.encode(encoder.tokenize(["old"]))[0])
    older = Outcome(("0",), fence, Fate.STORE, None, b"of the older one", None, (passage,))
    with connect(settings.database.url, "test") as connection:
        writer = layout.writer(connection, bound_sync(connection, settings, encoder))
        with connection.transaction():
            assert writer.write([older]) == [("0",)], "it is read again"
    assert wrong(docs, encoder) == []
