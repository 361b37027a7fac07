"""Vectors in a column of the source: which column will do, what becomes of it, and who may write it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from freshvec.config import Settings
from freshvec.db import connect
from freshvec.errors import SchemaError
from freshvec.schema import migrations
from freshvec.schema.apply import apply
from freshvec.schema.plan import plan
from freshvec.schema.script import of_plans
from freshvec.target.search import search
from tests.integration.at_rest import Kept
from tests.integration.indexing import HNSW
from tests.integration.locking import NULL, ON_18, apply_to
from tests.support import MODEL, NullEncoder, backfill, bound_sync, count, running, sync_of, until, wait_fresh

UNFIT: dict[str, tuple[str, dict[str, Any], str]] = {
    "of another dimension": ("embedding vector(3)", {}, "Write a model that gives vector(3)"),
    "of another type": ("embedding halfvec(8)", {}, 'Write type = "halfvec" in target'),
    "of no vector type": ("embedding text", {}, "Or name another column"),
    "without a dimension": ("embedding vector", {}, 'ALTER COLUMN "embedding" TYPE "public"."vector"(8)'),
    "required": ("embedding vector(8) NOT NULL", {}, 'ALTER COLUMN "embedding" DROP NOT NULL'),
    "generated": ("embedding vector(8) GENERATED ALWAYS AS (NULL) STORED", {}, "it is generated"),
    "in the text": (
        "embedding vector(8)",
        {"expression": "body || coalesce(embedding::text, '')"},
        "the text depends on it",
    ),
    "in where": ("embedding vector(8)", {"where": "embedding IS NULL"}, "the text depends on it"),
    "in the key": ("other int", {"target": {"column": "id"}}, "it is part of the key"),
}


@ON_18
@pytest.mark.parametrize("what", UNFIT)
def test_a_column_that_cannot_take_vectors_is_refused(column: Kept, what: str) -> None:
    declared, more, said = UNFIT[what]
    if "NOT NULL" in declared:
        column.app.execute("TRUNCATE docs")
    column.app.execute(f"ALTER TABLE docs ADD COLUMN {declared}".encode())
    column.sync = sync_of("docs", **({"target": {"column": "embedding"}} | more))
    with pytest.raises(SchemaError) as refused:
        apply_to(column)
    assert said in str(refused.value)


@ON_18
def test_a_target_of_the_other_layout_is_refused(column: Kept) -> None:
    in_column = column.sync
    column.sync = sync_of("docs")
    apply_to(column)
    column.sync = in_column
    with pytest.raises(SchemaError, match="in the target, and are declared to be in a column of the source"):
        apply_to(column)


def test_an_existing_column_is_used_and_apply_adds_none(column: Kept) -> None:
    column.app.execute("ALTER TABLE docs ADD COLUMN embedding vector(8)")
    with column.running() as worker:
        column.comes_to_rest(worker)
    assert not apply_to(column), "nothing is to be done"


def test_apply_adds_the_column_once_and_says_so_before(column: Kept) -> None:
    with connect(column.settings.database.url, "test") as connection:
        planned = plan(connection, column.settings.sync[0], NULL)
        assert planned.lacking[0] == 'ALTER TABLE "public"."docs" ADD COLUMN "embedding" "public"."vector"(8)'
        script = of_plans(connection, migrations.pending(connection), [planned])
    column.app.execute(script.replace("%%", "%").encode(), prepare=False)
    column.app.execute("RESET ALL")
    with connect(column.settings.database.url, "test") as connection:
        assert not plan(connection, column.settings.sync[0], NULL).lacking
    with column.running() as worker:
        column.comes_to_rest(worker)
        generation = "SELECT generation FROM freshvec.sync"
        before = column.app.execute(generation).fetchone()
        worker.sweep()
        column.edit("after the sweep")
        until("it is followed", column.is_right)
        assert column.app.execute(generation).fetchone() == before, "it is not bound anew for its own column"


GONE = {
    "dropped": ("ALTER TABLE docs DROP COLUMN embedding", "ADD COLUMN", "ADD COLUMN embedding vector(8)"),
    "retyped": (
        "ALTER TABLE docs ALTER embedding TYPE text",
        "it is text",
        "ALTER embedding TYPE vector(8) USING embedding::vector(8)",
    ),
    "renamed": (
        "ALTER TABLE docs RENAME embedding TO vectors",
        "it is not there any more",
        "RENAME vectors TO embedding",
    ),
}


@pytest.mark.parametrize("how", GONE)
def test_a_column_that_goes_is_said_and_taken_up_again(column: Kept, how: str) -> None:
    change, said, back = GONE[how]
    with column.running() as worker:
        column.app.execute(change.encode())
        worker.sweep()
        until("status says so", lambda: said in str(column.status()["last_error"]))
        assert count(
            column.app, "pg_attribute WHERE attrelid = 'docs'::regclass AND attname = 'embedding'"
        ) == (how == "retyped"), "nobody makes it again unasked"
        column.app.execute(f"ALTER TABLE docs {back}".encode())
        column.comes_to_rest(worker)


@pytest.fixture
def few(column: Kept) -> Iterator[Settings]:
    """The worker's role has been granted what it needs; and its settings."""
    column.app.execute("DROP ROLE IF EXISTS column_few")
    column.app.execute("CREATE ROLE column_few LOGIN")
    database = {"url": column.url.replace("postgres:@", "column_few@"), "worker_role": "column_few"}
    given = {**column.settings.model_dump(exclude={"database"}), "database": database}
    yield Settings.model_validate(given)
    column.app.execute("DROP OWNED BY column_few")
    column.app.execute("DROP ROLE column_few")


def test_the_worker_needs_update_on_that_column_alone(column: Kept, few: Settings) -> None:
    with connect(column.settings.database.url, "apply") as connection:
        migrations.migrate(connection)
        grants = plan(connection, column.settings.sync[0], NULL, "column_few").access
        assert 'GRANT UPDATE ("embedding") ON "public"."docs" TO "column_few"' in grants
        apply(connection, column.settings.sync[0], NULL, "column_few")
        assert not plan(connection, column.settings.sync[0], NULL, "column_few").access
    right = "SELECT has_table_privilege('column_few', 'docs', 'UPDATE')"
    assert column.app.execute(right).fetchone() == (False,)
    with running(few, column.encoder) as worker:
        wait_fresh(worker)
        column.comes_to_rest(worker)
    column.app.execute("REVOKE UPDATE (embedding) ON docs FROM column_few")
    with connect(column.settings.database.url, "apply") as connection:
        assert len(plan(connection, column.settings.sync[0], NULL, "column_few").access) > 0


def test_a_table_with_partitions_is_written_through_the_parent(column: Kept) -> None:
    column.app.execute("""ALTER TABLE docs RENAME TO docs_1;
        CREATE TABLE docs (LIKE docs_1, PRIMARY KEY (id)) PARTITION BY RANGE (id);
        ALTER TABLE docs ATTACH PARTITION docs_1 FOR VALUES FROM (0) TO (30000);
        CREATE TABLE docs_2 PARTITION OF docs FOR VALUES FROM (30000) TO (MAXVALUE);
        INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(30001, 30020) g""")
    with column.running() as worker:
        column.comes_to_rest(worker)
        column.app.execute("UPDATE docs SET id = 30500, body = 'moved' WHERE id = 3")
        column.app.execute("UPDATE docs_2 SET embedding = NULL WHERE id = 30001")
        until("a row that moved is followed", column.is_right)
    column.sync["index"] = HNSW
    with pytest.raises(SchemaError, match="partitions or children"):
        apply_to(column)


def test_its_index_is_on_the_table_and_serves_searches(column: Kept) -> None:
    """One that is on another column is no answer to it."""
    column.app.execute("ALTER TABLE docs ADD COLUMN others vector(8), ADD COLUMN words text[]")
    column.app.execute("CREATE INDEX theirs ON docs USING hnsw (others vector_cosine_ops)")
    column.app.execute("CREATE INDEX words ON docs USING gin (words)")
    column.sync["index"] = HNSW
    with column.running() as worker:
        until("it is built", lambda: count(column.app, "freshvec.indexes WHERE is_valid") == 1)
        column.comes_to_rest(worker)
    (definition,) = column.app.execute("SELECT definition FROM freshvec.indexes").fetchone() or ("",)
    assert "ON public.docs USING hnsw (embedding" in definition
    column.app.execute("SET enable_seqscan = off; SET enable_sort = off")
    query = "EXPLAIN SELECT id FROM docs_embedded ORDER BY embedding <=> %s::vector LIMIT 5"
    shown = "\n".join(line for (line,) in column.app.execute(query, (str([1.0] * 8),)))
    assert "Index Scan using freshvec_docs_" in shown


@ON_18
@pytest.mark.parametrize("more", [{}, {"index": {"type": "hnsw", "binary": True}}, {"kind": "real[]"}])
def test_search_finds_rows_by_it(column: Kept, more: dict[str, Any]) -> None:
    kind = more.pop("kind", "vector")
    column.sync = sync_of("docs", target={"column": "embedding", "type": kind}, **more)
    backfill(column.settings, column.encoder)
    column.app.execute("UPDATE docs_embedding SET fingerprint = 'another model' WHERE id = 7")
    (query,) = column.encoder.encode(column.encoder.tokenize(["text 9"]))
    with connect(column.settings.database.url, "test") as connection:
        bound = bound_sync(connection, column.settings, column.encoder)
        hits = search(connection, bound, np.asarray(query), 60)
    assert hits[0].key == ("9",)
    assert len(hits) == 49
    assert bound.model.name == MODEL


def test_who_may_not_see_a_row_does_not_see_its_vector(column: Kept) -> None:
    backfill(column.settings, NullEncoder())
    column.app.execute("""DROP ROLE IF EXISTS column_reader; CREATE ROLE column_reader;
        GRANT SELECT ON docs TO column_reader;
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY; CREATE POLICY first ON docs USING (id < 10)""")
    apply_to(column)
    column.app.execute("SET ROLE column_reader")
    assert count(column.app, "docs_embedded") == 9
    assert count(column.app, "docs_embedding") == 9
    column.app.execute("RESET ROLE; DROP OWNED BY column_reader; DROP ROLE column_reader")


def test_a_superuser_writes_no_table_of_others(column: Kept) -> None:
    """Their triggers would run with its rights."""
    column.app.execute("DROP ROLE IF EXISTS column_owner; CREATE ROLE column_owner")
    column.app.execute("ALTER TABLE docs OWNER TO column_owner")
    with pytest.raises(SchemaError, match="whose triggers would run with a superuser's rights"):
        apply_to(column)
    column.app.execute("DROP OWNED BY column_owner; DROP ROLE column_owner")
