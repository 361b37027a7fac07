"""`freshvec doctor` on the index: missed among many vectors, unfinished, or kept from being built."""

import pytest

from freshvec.config import Settings
from freshvec.doctor.indexes import MANY, indexes
from tests.integration.doctor_checks import FAULT, OK, WARNING, looked, worst
from tests.support import Connection, NullEncoder, backfill, settings_for, sync_of


@pytest.fixture
def settings(url: str, docs: Connection) -> Settings:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 20) g")
    settings = settings_for(url, sync_of("docs"))
    backfill(settings, NullEncoder())
    return settings


def test_many_vectors_without_an_index(settings: Settings, docs: Connection) -> None:
    assert looked(indexes, settings) == [], "few need none"
    docs.execute("UPDATE freshvec.sync SET rows_embedded = %s", (MANY,))
    (found,) = looked(indexes, settings)
    assert (found.severity, "100,000 vectors and no index" in found.what) == (WARNING, True)
    assert 'write index = { type = "hnsw" }' in found.remedy
    declared = settings_for(settings.database.url.get_secret_value(), sync_of("docs", index={}))
    assert looked(indexes, declared) == [], "it is declared, and comes"
    docs.execute("CREATE INDEX near ON docs_embedding USING hnsw (embedding vector_cosine_ops)")
    (found,) = looked(indexes, settings)
    assert (found.severity, "near serves" in found.what) == (OK, True)


def test_what_was_not_finished_and_what_was_not_begun(settings: Settings, docs: Connection) -> None:
    docs.execute("CREATE INDEX near ON docs_embedding USING hnsw (embedding vector_cosine_ops)")
    docs.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'near'::regclass")
    found = worst(looked(indexes, settings))
    assert (found.severity, "near was not finished" in found.what) == (WARNING, True)
    docs.execute(found.remedy.partition(";")[0].encode())
    docs.execute("UPDATE freshvec.sync SET index_trouble = 'cannot index it: no space left'")
    found = worst(looked(indexes, settings))
    assert (found.severity, "no space left" in found.what) == (FAULT, True)
