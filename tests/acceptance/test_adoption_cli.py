"""`--adopt` on a table as an embedding script leaves it: OFFSET pages of 100, an UPDATE by executemany, and a
column of vectors; with the real model and the real program."""

import json
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from freshvec.encoding.encoder import OnnxEncoder
from freshvec.stdlib_texts import docstrings
from tests.staleness import stale
from tests.support import MODEL, Connection, WorkerProcess, config_toml, count, freshvec, write_config

ROWS, PAGE = 450, 100
SYNC = f'[[sync]]\nname = "records"\ntable = "records"\ncolumns = ["content"]\nmodel = "{MODEL}"\n'


def embedding_script(connection: Connection, vectors: dict[str, str]) -> None:
    """What such a script does, vectors as text included."""
    offset = 0
    while True:
        page = connection.execute(
            "SELECT id, content FROM records ORDER BY id LIMIT %s OFFSET %s", (PAGE, offset)
        ).fetchall()
        if not page:
            return
        with connection.transaction(), connection.cursor() as cursor:
            cursor.executemany(
                "UPDATE records SET embedding = %s WHERE id = %s",
                [(vectors[content], key) for key, content in page],
            )
        offset += PAGE


@pytest.fixture(scope="module")
def vectors(encoder: OnnxEncoder) -> dict[str, str]:
    """Some short texts and their vectors, encoded by the page."""
    texts = [f"{number} {text[:20]}" for number, (_, text) in enumerate(islice(docstrings(), ROWS))]
    pages = (texts[low : low + PAGE] for low in range(0, ROWS, PAGE))
    return {
        text: str(vector.tolist())
        for page in pages
        for text, vector in zip(page, encoder.encode(encoder.tokenize(page)), strict=True)
    }


@pytest.fixture
def records(application: Connection, vectors: dict[str, str]) -> Connection:
    application.execute("CREATE TABLE records (id serial PRIMARY KEY, content text, embedding vector(384))")
    application.execute(
        "INSERT INTO records (content) SELECT (%s::text[])[1 + g %% %s] FROM generate_series(0, %s) g",
        (list(vectors), len(vectors), ROWS - 1),
    )
    embedding_script(application, vectors)
    application.execute("CREATE INDEX ON records USING hnsw (embedding vector_cosine_ops)")
    return application


@pytest.fixture
def config(url: str, models_dir: Path, tmp_path: Path) -> str:
    toml = config_toml(url, models_dir, SYNC, 'precision = "fp32"')
    return str(write_config(tmp_path / "freshvec.toml", toml))


def test_a_table_as_a_script_leaves_it(records: Connection, encoder: OnnxEncoder, config: str) -> None:
    before = records.execute("SELECT md5(string_agg(r::text, '' ORDER BY id)) FROM records r").fetchone()
    planned = freshvec("plan", "records", "--adopt", "auto", "--json", "--config", config)
    assert planned.returncode == 0, planned.stderr
    (sync,) = json.loads(planned.stdout)["syncs"]
    assert sync["adoption"]["from"] == "public.records.embedding"
    assert (sync["adoption"]["compared"], sync["adoption"]["agreeing"]) == (250, 250)
    assert sync["cost"]["to_encode"] == 0
    assert count(records, "pg_namespace WHERE nspname = 'freshvec'") == 0, "a plan changes nothing"

    applied = freshvec("apply", "--adopt", "public.records.embedding", "--config", config)
    assert applied.returncode == 0, applied.stderr
    assert "250 of 250 random rows have the vector that their text has now" in applied.stdout
    assert "with 95% confidence at most 1.2% of them" in " ".join(applied.stdout.split())
    assert f"{ROWS} vectors taken over; 250 texts were encoded to compare" in applied.stdout

    filled = freshvec("backfill", "--config", config)
    assert filled.returncode == 0, filled.stderr
    assert re.search(r"every row is fresh; .*\b0 encoded", filled.stdout + filled.stderr)
    assert wrong(records, encoder) == []
    verified = freshvec("verify", "--vectors", str(ROWS), "--config", config)
    assert verified.returncode == 0, verified.stdout
    again = freshvec("apply", "--adopt", "auto", "--config", config)
    assert again.returncode == 0, again.stderr
    assert "0 vectors taken over" in again.stdout

    assert freshvec("remove", "records", "--yes", "--config", config).returncode == 0
    after = records.execute("SELECT md5(string_agg(r::text, '' ORDER BY id)) FROM records r").fetchone()
    assert after == before, "its column is as it was"


def wrong(records: Connection, encoder: OnnxEncoder) -> list[str]:
    """What `stale` says of the table under its own names."""
    records.execute("CREATE TEMP VIEW docs AS SELECT id, content AS body FROM records")
    records.execute("CREATE TEMP VIEW docs_embedding AS SELECT * FROM records_embedding")
    found = stale(records, encoder)
    records.execute("DROP VIEW docs, docs_embedding")
    return found


def test_another_models_vectors_change_nothing(records: Connection, config: str) -> None:
    records.execute(
        "UPDATE records SET embedding = (SELECT array_agg(random()) FROM generate_series(1, 384))"
    )
    refused = freshvec("apply", "records", "--adopt", "embedding", "--config", config)
    assert refused.returncode == 1
    assert "of 250 random rows 0 have the vector that all-MiniLM-L6-v2 gives" in refused.stderr
    assert "Without --adopt every row is encoded." in refused.stderr
    assert count(records, "pg_namespace WHERE nspname = 'freshvec'") == 0
    planned = freshvec("plan", "records", "--adopt", "embedding", "--config", config)
    assert planned.returncode == 0
    assert "adopts     nothing: they are not of this model and text" in planned.stdout


def test_stale_ones_among_them_are_encoded_unless_told_otherwise(records: Connection, config: str) -> None:
    records.execute("UPDATE records SET content = 'changed ' || id WHERE id % 50 = 0")
    planned = freshvec("plan", "records", "--adopt", "embedding", "--config", config)
    said = " ".join(planned.stdout.split())
    assert "of the sample are of an older text, and only encoding tells which of the others are" in said
    trusted = freshvec("plan", "records", "--adopt", "embedding", "--trust", "--config", config)
    assert "of all rows, which are not encoded again, though about" in " ".join(trusted.stdout.split())
    applied = freshvec("apply", "--adopt", "embedding", "--config", config)
    assert applied.returncode == 0, applied.stderr
    assert "to be searched until their rows are encoded" in applied.stdout
    assert "rows of the sample that disagree are queued" in applied.stdout
    assert count(records, "records_embedded") > 400
    assert count(records, "records_embedding WHERE content_hash IS NOT NULL") == 0


def test_it_goes_with_one_sync(url: str, models_dir: Path, tmp_path: Path) -> None:
    two = SYNC + SYNC.replace('name = "records"', 'name = "b"\ntarget = { table = "b" }')
    config = str(write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, two)))
    for arguments in (("--adopt", "auto"), ("records", "--trust")):
        refused = freshvec("apply", *arguments, "--config", config)
        assert refused.returncode == 2, refused.stderr


def test_a_worker_that_keeps_the_sync_is_not_disturbed(
    records: Connection, config: str, workers: Callable[..., WorkerProcess]
) -> None:
    assert freshvec("apply", "--config", config).returncode == 0
    records.execute("SELECT pg_advisory_lock(%s, hashtext('records'))", (0x66766563,))
    refused = freshvec("apply", "--adopt", "embedding", "--config", config)
    assert refused.returncode == 1
    assert "a running worker keeps it" in refused.stderr
    assert count(records, "records_embedding") == 0
