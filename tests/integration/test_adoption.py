"""Vectors that were there before freshvec: proved by a sample, taken over, and never trusted beyond that."""

import itertools
import random
import threading
from collections import Counter

import psycopg
import pytest

from freshvec.adoption.takeover import Taken, take_over
from freshvec.db import connect
from freshvec.scans.verify import verify
from freshvec.schema.apply import remove
from tests.integration.adopting import Adoption, embed
from tests.staleness import EVERY_ROW_IN_COLUMN, stale
from tests.support import (
    Connection,
    NullEncoder,
    backfill,
    bound_sync,
    count,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
)

MANY = "INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, %s) g"


@pytest.fixture
def adoption(url: str, docs: Connection) -> Adoption:
    """2,000 rows with a column of vectors, and the sync that is to have them."""
    docs.execute("ALTER TABLE docs ADD embedding vector(8)")
    docs.execute(MANY, (2000,))
    embed(docs)
    return Adoption(settings_for(url, sync_of("docs")), NullEncoder())


def hashless(connection: Connection) -> int:
    return count(connection, "docs_embedding WHERE content_hash IS NULL")


def test_a_column_is_taken_over_and_no_row_encoded_again(adoption: Adoption, docs: Connection) -> None:
    docs.execute("INSERT INTO docs VALUES (5001, 'new'), (5002, NULL), (5003, '  ')")
    before = docs.execute("SELECT md5(string_agg(d::text, '|' ORDER BY id)) FROM docs d").fetchone()
    taken = adoption.run("docs.embedding")
    assert adoption.encoder.encoded == 250, "the sample"
    assert (taken.rows, taken.vectors) == (2003, 2000)
    assert taken.refused == {"missing": 1}, "a row without a text is none that waits"
    backfill(adoption.settings, adoption.encoder)
    assert adoption.encoder.encoded == 251, "the one row without a vector"
    assert stale(docs, adoption.encoder) == []
    with connect(adoption.settings.database.url, "test") as connection:
        assert verify(connection, bound_sync(connection, adoption.settings, adoption.encoder)).is_fresh
        remove(connection, "docs")
    assert docs.execute("SELECT md5(string_agg(d::text, '|' ORDER BY id)) FROM docs d").fetchone() == before
    assert count(docs, "pg_trigger WHERE tgrelid = 'docs'::regclass") == 0


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("halfvec(8)", "embedding::halfvec(8)"),
        ("real[]", "embedding::real[]"),
        ("double precision[]", "embedding::real[]::float8[]"),
        ("text", "embedding::text"),
        ("text", "'{' || btrim(embedding::text, '[]') || '}'"),
        ("jsonb", "embedding::text::jsonb"),
        ("vector", "embedding"),
    ],
)
def test_every_type_that_holds_numbers_will_do(
    adoption: Adoption, docs: Connection, kind: str, value: str
) -> None:
    docs.execute(f"ALTER TABLE docs ADD embedding_of_old {kind}".encode())
    docs.execute(f"UPDATE docs SET embedding_of_old = {value}".encode())
    taken = adoption.run("embedding_of_old")
    assert taken.vectors == 2000
    backfill(adoption.settings, adoption.encoder)
    assert adoption.encoder.encoded == 250
    assert stale(docs, adoption.encoder) == []


def test_vectors_that_are_not_of_length_1_become_so(adoption: Adoption, docs: Connection) -> None:
    docs.execute("UPDATE docs SET embedding = (SELECT array_agg(7 * x) FROM unnest(embedding::real[]) x)")
    adoption.run("embedding")
    lengths = docs.execute(
        "SELECT min(vector_norm(embedding)), max(vector_norm(embedding)) FROM docs_embedding"
    )
    assert lengths.fetchone() == pytest.approx((1.0, 1.0), abs=1e-6)


@pytest.mark.parametrize("kind", ["halfvec", "real[]"])
def test_the_target_may_be_of_another_type(adoption: Adoption, docs: Connection, kind: str) -> None:
    adoption.settings = settings_for(
        adoption.settings.database.url.get_secret_value(), sync_of("docs", target={"type": kind})
    )
    assert adoption.run().vectors == 2000
    before = adoption.encoder.encoded
    backfill(adoption.settings, adoption.encoder)
    assert adoption.encoder.encoded == before
    assert stale(docs, adoption.encoder) == []


def test_what_lies_in_its_own_column_stays_untouched(adoption: Adoption, docs: Connection) -> None:
    declared = sync_of("docs", target={"column": "embedding"})
    adoption.settings = settings_for(adoption.settings.database.url.get_secret_value(), declared)
    before = docs.execute("SELECT sum(hashtext(ctid::text)), count(*) FROM docs").fetchone()
    assert adoption.run("docs.embedding").vectors == 2000
    assert docs.execute("SELECT sum(hashtext(ctid::text)), count(*) FROM docs").fetchone() == before
    encoded = adoption.encoder.encoded
    backfill(adoption.settings, adoption.encoder)
    assert adoption.encoder.encoded == encoded
    assert stale(docs, adoption.encoder, EVERY_ROW_IN_COLUMN) == []


def test_another_models_vectors_are_refused(adoption: Adoption, docs: Connection) -> None:
    docs.execute("UPDATE docs SET embedding = ARRAY[1, id % 7, id % 5, 0, id % 3, 0, 0, 1]::real[]")
    _, proof = adoption.prove()
    assert proof.compared == 250
    assert not proof.is_of_the_model


def test_a_row_that_disagrees_is_queued_and_where_one_does_all_are_encoded(
    adoption: Adoption, docs: Connection
) -> None:
    docs.execute("UPDATE docs SET body = 'changed ' || id WHERE id % 50 = 0")  # 2% of them
    _, proof = adoption.prove(rows=500)
    assert (proof.is_of_the_model, proof.is_proven) == (True, False)
    adoption.run("embedding", rows=500)
    disagreeing = count(docs, "freshvec.queue_docs")
    assert disagreeing > 0
    assert count(docs, "docs_embedded") == 2000 - disagreeing, "searched while they are encoded"
    assert hashless(docs) == 2000 - disagreeing, "none counts as that of its text"
    row = docs.execute("SELECT freshvec.is_fresh('docs', '1999')").fetchone()
    assert row == (False,), "and nobody is told so"
    backfill(adoption.settings, adoption.encoder)
    assert stale(docs, adoption.encoder) == []
    assert hashless(docs) == 0


def test_trust_takes_them_all_but_for_those_that_were_seen_to_be_wrong(
    adoption: Adoption, docs: Connection
) -> None:
    docs.execute("UPDATE docs SET body = 'changed ' || id WHERE id % 50 = 0")
    adoption.run("embedding", with_hashes=True, rows=500)
    seen = count(docs, "freshvec.queue_docs")
    before = adoption.encoder.encoded
    backfill(adoption.settings, adoption.encoder)
    assert 0 < seen <= adoption.encoder.encoded - before <= 2 * seen
    assert len(stale(docs, adoption.encoder)) == 40 - seen


def test_a_table_that_was_looked_at_whole_is_proven_row_by_row(url: str, docs: Connection) -> None:
    docs.execute("ALTER TABLE docs ADD embedding vector(8)")
    docs.execute(MANY, (100,))
    embed(docs)
    docs.execute("UPDATE docs SET body = 'changed ' || id WHERE id IN (4, 77)")
    adoption = Adoption(settings_for(url, sync_of("docs")), NullEncoder())
    taken = adoption.run()
    assert taken.vectors == 98
    backfill(adoption.settings, adoption.encoder)
    assert adoption.encoder.encoded <= 104, "the walk may meet a row that the queue has, too"
    assert stale(docs, adoption.encoder) == []


def test_an_edit_between_the_triggers_and_its_page_is_not_taken_for_embedded(
    adoption: Adoption, docs: Connection
) -> None:
    """The old way has not made its new vector yet, so the row has the new text beside the old vector."""
    origin, proof = adoption.prove()
    bound = adoption.apply()
    docs.execute("UPDATE docs SET body = 'edited' WHERE id = 1000")
    docs.execute("UPDATE docs SET embedding = embedding WHERE id = 1001")
    with connect(adoption.settings.database.url, "test") as connection:
        taken = take_over(connection, bound, origin, proof, with_hashes=True)
    assert taken.vectors == 1999, "another column's update is none of ours"
    backfill(adoption.settings, adoption.encoder)
    assert adoption.encoder.encoded == 251
    assert stale(docs, adoption.encoder) == []


def test_edits_and_a_slow_old_way_beside_it(adoption: Adoption, docs: Connection, url: str) -> None:
    """Rows are edited all the while, and their old vectors follow later; whatever page meets them, no old
    vector is kept for a new text."""
    origin, proof = adoption.prove()
    bound = adoption.apply()
    edited, is_over = Counter[int](), threading.Event()

    def edit() -> None:
        with psycopg.connect(url, autocommit=True) as application:
            for turn in itertools.count():
                if is_over.is_set():
                    return
                rows = [random.randrange(1, 2001) for _ in range(5)]
                text = f"edit {turn} of "
                application.execute(
                    "UPDATE docs SET body = %s || id WHERE id = ANY (%s)", (text, sorted(rows))
                )
                edited.update(rows)
                if turn % 2:  # the old way comes later, and not to all
                    embed(application, rows=sorted(rows))

    thread = threading.Thread(target=edit)
    thread.start()
    try:
        until("rows are edited", lambda: len(edited) > 20)
        with connect(adoption.settings.database.url, "test") as connection:
            taken = take_over(
                connection, bound, origin, proof, with_hashes=True, between=lambda _: _wait_for_edits(edited)
            )
    finally:
        is_over.set()
        thread.join(30)
    assert 0 < taken.vectors < 2000
    backfill(adoption.settings, adoption.encoder)
    assert stale(docs, adoption.encoder) == []


def _wait_for_edits(edited: Counter[int]) -> None:
    """Each page has edits between it and the next."""
    before = edited.total()
    until("more rows are edited", lambda: edited.total() > before + 20)


def test_nothing_is_taken_over_while_changes_went_unnoted(adoption: Adoption, docs: Connection) -> None:
    origin, proof = adoption.prove()
    bound = adoption.apply()
    docs.execute("SELECT freshvec.ask_for_walk('docs', 'the queue is full')")
    with connect(adoption.settings.database.url, "test") as connection:
        assert take_over(connection, bound, origin, proof, with_hashes=True).vectors == 0


class Killed(Exception):
    pass


def test_killed_anywhere_it_goes_on_and_a_worker_may_come_in_between(
    adoption: Adoption, docs: Connection
) -> None:
    origin, proof = adoption.prove()
    bound = adoption.apply()

    def kill(taken: Taken) -> None:
        if taken.rows > 300:
            raise Killed

    with connect(adoption.settings.database.url, "test") as connection, pytest.raises(Killed):
        take_over(connection, bound, origin, proof, with_hashes=True, between=kill)
    there = count(docs, "docs_embedding")
    assert 0 < there < 2000
    docs.execute("UPDATE docs SET body = 'edited ' || id WHERE id IN (5, 1999)")
    taken = adoption.run("embedding")
    assert taken.vectors == 2000 - there - 1, "one of the edited rows was taken over before"
    with running(adoption.settings, adoption.encoder) as worker:
        wait_fresh(worker)
    assert adoption.encoder.encoded == 2 * 250 + 2, "edited rows say nothing of the others"
    assert adoption.run("embedding").vectors == 0
    assert stale(docs, adoption.encoder) == []


def test_what_status_counts_is_what_is_there(adoption: Adoption, docs: Connection) -> None:
    adoption.run("embedding")
    counted = docs.execute("SELECT rows_embedded FROM freshvec.sync").fetchone()
    assert counted == (2000,) == (count(docs, "docs_embedded"),)


def test_postgres_16(url16: str) -> None:
    with psycopg.connect(url16, autocommit=True) as connection:
        connection.execute("CREATE TABLE docs (id bigint PRIMARY KEY, body text, embedding vector(8))")
        connection.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 400) g")
        embed(connection)
        adoption = Adoption(settings_for(url16, sync_of("docs")), NullEncoder())
        assert adoption.run().vectors == 400
        assert stale(connection, adoption.encoder) == []
