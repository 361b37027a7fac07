"""Where vectors may be that were there before: found by name or by themselves, or refused with what to do."""

import pytest

from freshvec.adoption.origin import Origin, triggers
from freshvec.db import connect
from freshvec.errors import FreshvecError
from tests.integration.adopting import Adoption, embed
from tests.staleness import stale
from tests.support import Connection, NullEncoder, backfill, bound_sync, count, settings_for, sync_of


@pytest.fixture
def adoption(url: str, docs: Connection) -> Adoption:
    """300 rows, their vectors in a column called `own`."""
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 300) g")
    docs.execute("ALTER TABLE docs ADD own vector(8)")
    embed(docs, column="own")
    return Adoption(settings_for(url, sync_of("docs")), NullEncoder())


def moved(docs: Connection, ddl: str, insert: str) -> None:
    """The vectors in a table of their own instead."""
    docs.execute(ddl.encode())
    docs.execute(insert.encode())
    docs.execute("ALTER TABLE docs DROP own")


def names(found: Origin) -> tuple[str, tuple[str, ...]]:
    return found.where, found.key


def rest(adoption: Adoption, docs: Connection) -> int:
    """How many texts are encoded after adoption, until all is right."""
    before = adoption.encoder.encoded
    backfill(adoption.settings, adoption.encoder)
    encoded = adoption.encoder.encoded - before
    assert stale(docs, adoption.encoder) == []
    return encoded


@pytest.mark.parametrize("where", ["auto", "own", "docs.own", "public.docs.own", "docs", '"docs"."own"'])
def test_a_column_of_the_source(adoption: Adoption, where: str) -> None:
    assert names(adoption.find(where)) == ("public.docs.own", ("id",))


def test_a_table_whose_foreign_key_has_another_name(adoption: Adoption, docs: Connection) -> None:
    docs.execute("CREATE SCHEMA ml")
    moved(
        docs,
        "CREATE TABLE ml.vectors (doc_id bigint PRIMARY KEY REFERENCES docs, v halfvec(8), note text)",
        "INSERT INTO ml.vectors SELECT id, own FROM docs",
    )
    for where in ("auto", "vectors", "ml.vectors", "ml.vectors.v", "vectors.v"):
        assert names(adoption.find(where)) == ("ml.vectors.v", ("doc_id",))
    assert adoption.run().vectors == 300
    assert rest(adoption, docs) == 0


PGAI = """
CREATE SCHEMA ai;
CREATE TABLE ai.vectorizer (id int PRIMARY KEY, trigger_name name NOT NULL);
INSERT INTO ai.vectorizer VALUES (7, '_vectorizer_src_trg_7');
CREATE FUNCTION ai._vectorizer_src_trg_7() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER _vectorizer_src_trg_7 AFTER UPDATE ON docs FOR EACH ROW
       EXECUTE FUNCTION ai._vectorizer_src_trg_7();
CREATE TABLE docs_embedding_store (
  embedding_uuid uuid NOT NULL PRIMARY KEY DEFAULT gen_random_uuid(), id bigint NOT NULL,
  chunk_seq int NOT NULL, chunk text NOT NULL, embedding vector(8) NOT NULL, UNIQUE (id, chunk_seq));
CREATE VIEW docs_embedding AS
SELECT t.embedding_uuid, t.chunk_seq, t.chunk, t.embedding, s.id, s.body
  FROM docs_embedding_store t LEFT JOIN docs s USING (id);
INSERT INTO docs_embedding_store (id, chunk_seq, chunk, embedding) SELECT id, 0, body, own FROM docs;
ALTER TABLE docs DROP own
"""


def test_pgais_store_and_view(url: str, adoption: Adoption, docs: Connection) -> None:
    docs.execute(PGAI)
    docs.execute(
        "INSERT INTO docs_embedding_store (id, chunk_seq, chunk, embedding) "
        "SELECT id, 1, chunk, embedding FROM docs_embedding_store WHERE id <= 20"
    )
    docs.execute("UPDATE docs SET body = 'edited ' || id WHERE id BETWEEN 101 AND 150")
    target = {"table": "docs_vectors"}  # the view has the default's name
    adoption.settings = settings_for(url, sync_of("docs", target=target))
    for where in ("auto", "docs_embedding", "docs_embedding_store", "public.docs_embedding_store.embedding"):
        assert names(adoption.find(where)) == ("public.docs_embedding_store.embedding", ("id",))
    origin, proof = adoption.prove("docs_embedding")
    assert proof.is_proven, "a text that is known to be another one says nothing against the model"
    with connect(adoption.settings.database.url, "test") as connection:
        bound = bound_sync(connection, adoption.settings, adoption.encoder)
        (trigger,) = triggers(connection, bound, origin)
    assert (trigger.name, trigger.command) == ("_vectorizer_src_trg_7", "SELECT ai.drop_vectorizer(7);")
    taken = adoption.run("docs_embedding")
    assert (taken.vectors, taken.refused) == (230, {"parts": 20, "text": 50})
    assert len(taken.examples["parts"]) == 3
    before = adoption.encoder.encoded
    backfill(adoption.settings, adoption.encoder)
    assert adoption.encoder.encoded - before == 70
    assert count(docs, "docs_vectors_embedded") == 300
    assert count(docs, "docs_embedding_store") == 320, "theirs stays as it was"


PG_VECTORIZE = """
CREATE SCHEMA vectorize;
CREATE TABLE vectorize._embeddings_my_job (
  id bigint UNIQUE NOT NULL, embeddings vector(8) NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now(),
  FOREIGN KEY (id) REFERENCES docs (id) ON DELETE CASCADE);
CREATE FUNCTION vectorize.handle_update_my_job() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER "Vectorize_update_trigger" AFTER UPDATE ON docs FOR EACH ROW
       EXECUTE FUNCTION vectorize.handle_update_my_job();
CREATE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER other BEFORE UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION other();
INSERT INTO vectorize._embeddings_my_job SELECT id, own FROM docs;
ALTER TABLE docs DROP own, ADD updated_at timestamptz DEFAULT now() - interval '1 hour'
"""


def test_pg_vectorizes_table_and_what_was_changed_since(adoption: Adoption, docs: Connection) -> None:
    docs.execute(PG_VECTORIZE)
    docs.execute("UPDATE docs SET body = 'edited ' || id, updated_at = clock_timestamp() WHERE id % 10 = 0")
    origin, proof = adoption.prove()
    assert names(origin) == ("vectorize._embeddings_my_job.embeddings", ("id",))
    with connect(adoption.settings.database.url, "test") as connection:
        (trigger,) = triggers(connection, bound_sync(connection, adoption.settings, adoption.encoder), origin)
    assert trigger.command == 'DROP TRIGGER "Vectorize_update_trigger" ON public.docs;'
    assert proof.is_proven
    taken = adoption.run()
    assert (taken.vectors, taken.refused) == (270, {"date": 30})
    assert rest(adoption, docs) == 30


def test_pgais_catalogue_is_not_asked_where_it_may_not_be_read(
    url: str, adoption: Adoption, docs: Connection
) -> None:
    docs.execute(PGAI)
    docs.execute("""
        CREATE ROLE adopter LOGIN; GRANT CREATE ON SCHEMA public TO adopter;
        ALTER TABLE docs OWNER TO adopter; ALTER TABLE docs_embedding_store OWNER TO adopter""")
    try:
        settings = settings_for(
            url.replace("postgres:@", "adopter:@"), sync_of("docs", target={"table": "d"})
        )
        adoption.settings = settings
        origin, proof = adoption.prove("docs_embedding_store")
        with connect(settings.database.url, "test") as connection:
            bound = bound_sync(connection, settings, adoption.encoder)
            (trigger,) = triggers(connection, bound, origin)
        assert proof.is_proven
        assert trigger.command == "DROP TRIGGER _vectorizer_src_trg_7 ON public.docs;"
    finally:
        docs.execute("REASSIGN OWNED BY adopter TO postgres; DROP OWNED BY adopter; DROP ROLE adopter")


def test_a_column_with_the_time_of_its_vector(adoption: Adoption, docs: Connection) -> None:
    docs.execute("ALTER TABLE docs ADD own_updated_at timestamp DEFAULT '2026-01-02'")
    docs.execute("ALTER TABLE docs ADD updated_at timestamp DEFAULT '2026-01-01'")
    docs.execute("UPDATE docs SET body = 'edited', updated_at = '2026-01-03' WHERE id = 9")
    assert adoption.run().refused == {"date": 1}


def test_a_key_of_several_columns_with_unusual_names(url: str, application: Connection) -> None:
    application.execute(
        'CREATE TABLE "Some Docs" ("Lang" text, "no." int, body text, PRIMARY KEY ("no.", "Lang"))'
    )
    application.execute("""INSERT INTO "Some Docs" SELECT l, g, l || g FROM generate_series(1, 40) g,
                           unnest(ARRAY['de', 'en']) l""")
    application.execute(
        'CREATE TABLE docs (id serial PRIMARY KEY, "Lang" text, "no." int, body text, own vector(8))'
    )
    application.execute('INSERT INTO docs ("Lang", "no.", body) SELECT * FROM "Some Docs"')
    embed(application, column="own")
    application.execute('ALTER TABLE docs RENAME TO "The 100% Vectors"')
    settings = settings_for(url, sync_of('public."Some Docs"'))
    adoption = Adoption(settings, NullEncoder())
    with pytest.raises(FreshvecError, match=r'CREATE INDEX CONCURRENTLY ON "public"."The 100% Vectors" \('):
        adoption.find('"The 100% Vectors"')
    application.execute('CREATE INDEX ON "The 100% Vectors" ("Lang", "no.")')
    assert adoption.find('"The 100% Vectors".own').key == ("no.", "Lang")
    assert adoption.run('public."The 100% Vectors"').vectors == 80


def test_a_partitioned_table(url: str, application: Connection) -> None:
    application.execute(
        "CREATE TABLE docs (id bigint PRIMARY KEY, body text, embedding vector(8)) PARTITION BY RANGE (id)"
    )
    for low in (0, 200):
        application.execute(
            f"CREATE TABLE docs_{low} PARTITION OF docs FOR VALUES FROM ({low}) TO ({low + 200})".encode()
        )
    application.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 399) g")
    embed(application)
    adoption = Adoption(settings_for(url, sync_of("docs")), NullEncoder())
    assert adoption.run().vectors == 399
    assert rest(adoption, application) == 0


@pytest.mark.parametrize(
    ("ddl", "where", "said"),
    [
        ("ALTER TABLE docs ADD v vector(384)", "v", "384 dimensions, but all-MiniLM-L6-v2 gives 8"),
        ("ALTER TABLE docs ADD v sparsevec(8)", "docs.v", "its type is sparsevec"),
        ("ALTER TABLE docs ADD v bit(8)", "docs.v", "its type is bit"),
        ("ALTER TABLE docs ADD v vector(8)", "auto", "several columns may be meant: .*own, .*v"),
        ("ALTER TABLE docs DROP own", "auto", "neither it nor a table with its key has"),
        ("SELECT", "nothing.there", r"no column of vectors .* There are: public.docs.own."),
        ("CREATE TABLE others (number int, v vector(8))", "others", r"that has its key \(id\)"),
        ("SELECT", "a.b.c.d", "it is no name of a column, table or view"),
        ("SELECT", "docs..own", "it is no name"),
    ],
)
def test_what_cannot_be_taken_over_is_refused(
    adoption: Adoption, docs: Connection, ddl: str, where: str, said: str
) -> None:
    docs.execute(ddl.encode())
    with pytest.raises(FreshvecError, match=said):
        adoption.find(where)


def test_numbers_that_are_no_vector_of_the_model_are_left(adoption: Adoption, docs: Connection) -> None:
    docs.execute("ALTER TABLE docs ADD embedding real[]")
    docs.execute("UPDATE docs SET embedding = own::real[]")
    for row, value in enumerate(
        (
            "'{}'",
            "'{1,2}'",
            "'{1,2,3,4,5,6,7,NULL}'",
            "'{0,0,0,0,0,0,0,0}'",
            "'{NaN,1,1,1,1,1,1,1}'",
            "'{{1,2,3,4},{5,6,7,8}}'",
        ),
        1,
    ):
        docs.execute(f"UPDATE docs SET embedding = {value} WHERE id = {row}".encode())
    taken = adoption.run("docs.embedding")
    assert (taken.vectors, taken.refused) == (294, {"numbers": 6})
    assert rest(adoption, docs) == 6


def test_texts_and_vectors_that_cannot_be_read_leave_their_neighbours(url: str, docs: Connection) -> None:
    docs.execute("INSERT INTO docs SELECT g, '100' || g FROM generate_series(1, 300) g")
    docs.execute("ALTER TABLE docs ADD own vector(8), ADD embedding text")
    embed(docs, column="own")
    docs.execute("UPDATE docs SET embedding = own::text")
    docs.execute("UPDATE docs SET embedding = 'no vector' WHERE id = 17")
    docs.execute("UPDATE docs SET body = 'no number' WHERE id = 170")
    adoption = Adoption(settings_for(url, sync_of("docs", expression="body::int::text")), NullEncoder())
    assert adoption.run("docs.embedding").vectors == 298
