"""What a plan says that embedding a table takes, against what it takes."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from freshvec.config import Settings
from freshvec.db import connect
from freshvec.encoding.rate import Rates
from freshvec.records import Model
from freshvec.schema import cost, difference
from freshvec.schema.cost import Cost, Layout, Sampled
from freshvec.schema.plan import plan
from freshvec.source.extent import Extent, measure
from freshvec.storage import Index
from freshvec.target.size import index_bytes, of_row
from tests.support import (
    DOCS_SYNC,
    MODEL,
    Connection,
    NullEncoder,
    backfill,
    config_toml,
    freshvec,
    models_in,
    settings_for,
    sync_of,
    write_config,
)

LAYOUT = Layout(dimension=384, max_tokens=64, kind="halfvec", key_columns=1)


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def cost_of(settings: Settings, models_dir: Path, fingerprint: bytes = NullEncoder.fingerprint) -> Cost:
    rates = Rates(models_in(models_dir), is_tried=False)
    with connect(settings.database.url, "test") as connection:
        planned = plan(connection, settings.sync[0], Model(MODEL, 8, 256, fingerprint))
        found = cost.of_plan(connection, planned, rates)
    assert isinstance(found, Cost), found
    return found


@pytest.mark.parametrize(
    ("kind", "dimension"),
    [("vector", 384), ("halfvec", 384), ("real[]", 384), ("vector", 768), ("halfvec", 1024)],
)
def test_disk_and_log_are_those_of_real_vectors(
    url: str, docs: Connection, kind: str, dimension: int
) -> None:
    rows = 600
    type_name = kind if kind == "real[]" else f"{kind}({dimension})"
    docs.execute(
        f"""CREATE TABLE t (id bigint PRIMARY KEY, embedding {type_name}, content_hash bytea,
                fingerprint bytea NOT NULL, fence bigint NOT NULL, encode_error text,
                embedded_at timestamptz NOT NULL DEFAULT now())""".encode()
    )
    (before,) = docs.execute("SELECT pg_current_wal_lsn()").fetchone() or ("",)
    docs.execute(
        f"""INSERT INTO t SELECT n, (SELECT array_agg((random() - 0.5)::real)
                                       FROM generate_series(1, {dimension}) WHERE n = n)::real[]::{type_name},
                   decode(repeat('00', 16), 'hex'), decode(repeat('00', 16), 'hex'), n
              FROM generate_series(1, {rows}) AS n""".encode()
    )
    wal, target = docs.execute(
        "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), %s)::float8, pg_total_relation_size('t')", (before,)
    ).fetchone() or (0, 0)
    size = of_row(dimension, kind, 8)
    assert size.target * rows == pytest.approx(target, rel=0.25)
    assert size.wal * rows == pytest.approx(wal, rel=0.25)
    if size.index is None:
        assert kind == "real[]"
        return
    bits = f"(binary_quantize(embedding)::bit({dimension})) bit_hamming_ops"
    for declared, index in (
        (Index(), f"hnsw (embedding {kind}_cosine_ops)"),
        (Index(m=32), f"hnsw (embedding {kind}_cosine_ops) WITH (m = 32)"),
        (Index(binary=True), f"hnsw ({bits})"),
        (Index(type="ivfflat"), f"ivfflat (embedding {kind}_cosine_ops) WITH (lists = 1)"),
    ):
        docs.execute(f"CREATE INDEX i ON t USING {index}".encode())
        (made,) = docs.execute("SELECT pg_relation_size('i')").fetchone() or (0,)
        assert index_bytes(dimension, kind, declared) * rows == pytest.approx(made, rel=0.15), index
        docs.execute("DROP INDEX i")
    assert size.index == index_bytes(dimension, kind, Index())


def test_tokens_rows_and_time_of_a_sample() -> None:
    rows = [Sampled("word " * 10)] * 6 + [Sampled("word " * 100)] * 2 + [Sampled(None)] * 2
    found = cost.of_sample(rows, Extent(1000, 10, 80_000, 1), LAYOUT, words, lambda texts: 1000.0)
    assert (found.rows, found.texts, found.again) == (1000, 800, 800)
    assert found.cut == 0.25
    assert found.tokens == 800 * (6 * 10 + 2 * 64) // 8
    assert found.seconds == pytest.approx(18.8)
    assert found.longest(0.5) == 10
    assert found.histogram() == [(0, 16, 0.75), (16, 32, 0), (32, 64, 0), (64, 100, 0.25)]


def test_what_is_fresh_is_not_encoded_again() -> None:
    rows = [Sampled("a"), Sampled("a", is_fresh=True), Sampled("a", is_fresh=True), Sampled(None)]
    found = cost.of_sample(rows, Extent(400, 10, 80_000, 1), LAYOUT, words, lambda texts: 1.0)
    assert (found.texts, found.again, found.tokens) == (300, 100, 100)


def test_a_sample_is_of_all_of_a_large_table(url: str, docs: Connection, models_dir: Path) -> None:
    text = "CASE WHEN n <= 10000 THEN repeat(' ', 80) ELSE 'with a text' || repeat('.', 70) END"
    docs.execute(f"INSERT INTO docs SELECT n, {text} FROM generate_series(1, 20000) AS n".encode())
    found = cost_of(settings_for(url, sync_of("docs")), models_dir)
    assert found.rows == pytest.approx(20000, rel=0.1)
    assert found.sampled < 1600
    assert 1000 < found.texts < 19000, "rows of both halves are seen"


def test_without_a_text_nothing_is_measured() -> None:
    found = cost.of_sample([Sampled(None)], Extent(1, 1, 8192, 1), LAYOUT, words, lambda texts: 1 / 0)
    assert (found.texts, found.tokens, found.rate, found.longest(0.5)) == (0, 0, None, 0)


@pytest.mark.parametrize("analysed", [True, False])
def test_rows_are_counted_in_some_pages(url: str, docs: Connection, analysed: bool) -> None:
    docs.execute("ALTER TABLE docs SET (autovacuum_enabled = false)")
    docs.execute("INSERT INTO docs SELECT n, repeat('x', 400) FROM generate_series(1, 20000) AS n")
    if analysed:
        docs.execute("ANALYZE docs")
    (oid,) = docs.execute("SELECT 'docs'::regclass::oid::bigint").fetchone() or (0,)
    extent = measure(docs, oid, ("public", "docs"))
    assert extent.rows == pytest.approx(20000, rel=0.1)
    assert extent.bytes > 20000 * 400


def test_rows_in_small_partitions_are_counted_in_some(url: str, application: Connection) -> None:
    application.execute("CREATE TABLE docs (id int PRIMARY KEY, body text) PARTITION BY RANGE (id)")
    for n in range(500):
        values = f"FROM ({n * 10}) TO ({n * 10 + 10})"
        application.execute(f"CREATE TABLE docs_{n} PARTITION OF docs FOR VALUES {values}".encode())
    application.execute("INSERT INTO docs SELECT n, 'text' FROM generate_series(0, 4999) AS n")
    (oid,) = application.execute("SELECT 'docs'::regclass::oid::bigint").fetchone() or (0,)
    assert measure(application, oid, ("public", "docs")).rows == pytest.approx(5000, rel=0.12)


def test_a_changed_text_is_encoded_again_where_it_differs(
    url: str, docs: Connection, models_dir: Path
) -> None:
    docs.execute("INSERT INTO docs SELECT n, 'text ' || n FROM generate_series(1, 200) AS n")
    encoder = NullEncoder()
    backfill(settings_for(url, sync_of("docs", target={"type": "vector"})), encoder)
    assert cost_of(settings_for(url, sync_of("docs")), models_dir).again == 0
    expression = "CASE WHEN id <= 50 THEN 'other ' || body ELSE body END"
    changed = settings_for(url, sync_of("docs", expression=expression))
    assert cost_of(changed, models_dir).again == 50
    encoded = encoder.encoded
    backfill(changed, encoder)
    assert encoder.encoded - encoded == 50
    assert cost_of(changed, models_dir, b"another model   ").again == 200


def test_the_difference_says_what_was_and_what_is_to_be(url: str, docs: Connection) -> None:
    old = settings_for(url, sync_of("docs", where="id > 1"))
    backfill(old, NullEncoder())
    new = settings_for(url, sync_of("docs", columns=["id", "body"]))
    with connect(new.database.url, "test") as connection:
        model = Model("bge-m3", 8, 256, b"another model   ")
        changes = difference.changes(plan(connection, new.sync[0], model))
        lost = plan(connection, old.sync[0], Model(MODEL, 8, 256, NullEncoder.fingerprint))
        assert difference.changes(lost) == []
    assert [(change.part, change.was, change.now) for change in changes] == [
        ("text", "body", "id, body"),
        ("where", "id > 1", "every row"),
        ("model", MODEL, "bge-m3"),
    ]


def test_the_command(url: str, docs: Connection, models_dir: Path, tmp_path: Path) -> None:
    docs.execute(
        "INSERT INTO docs SELECT n, repeat('How to bake bread. ', n) FROM generate_series(1, 80) AS n"
    )
    path = write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC))
    done = freshvec("plan", "--config", str(path))
    shown = done.stdout
    assert done.returncode == 0, done.stderr
    assert max(map(len, shown.splitlines())) <= 80
    assert "docs: not applied yet" in shown
    assert re.search(r"to encode  80 rows, about [\d,]+ tokens: \d+ (s|min) here", shown)
    assert re.search(r"> 256 +\d+% █+  cut: the model reads 256", shown)
    assert "SHARE ROW EXCLUSIVE on public.docs" in shown
    found = json.loads(freshvec("plan", "--json", "--no-measure", "--config", str(path)).stdout)
    assert found["migrations"]
    assert found["syncs"][0]["cost"]["to_encode"] == 80
    assert found["syncs"][0]["cost"]["seconds"] is None
    assert any('TRIGGER "freshvec_docs_update"' in text for text in found["syncs"][0]["statements"])
