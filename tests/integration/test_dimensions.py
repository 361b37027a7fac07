"""Vectors that are cut to fewer numbers, as a model's card allows it: never mixed with whole ones, and asked
for by queries that are cut alike."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from freshvec.config import Settings, Sync
from freshvec.db import connect
from freshvec.encoding.encoder import OnnxEncoder
from freshvec.encoding.loading import Models
from freshvec.errors import FreshvecError
from freshvec.health.declared import amiss
from freshvec.records import Vector, shortened
from freshvec.scans.verify import verify, verify_vectors
from freshvec.schema.plan import plan
from freshvec.target.search import search
from tests.staleness import as_vector
from tests.support import (
    MODEL,
    REPOSITORY,
    Connection,
    NullEncoder,
    backfill,
    running,
    settings_for,
    sync_of,
    wait_fresh,
)

CUT = {"table": "docs_cut", "dimensions": 4}


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """A folder with a card of the model by which it may be cut."""
    card = (REPOSITORY / "models" / f"{MODEL}.toml").read_text(encoding="utf-8")
    allowing = card.replace("matryoshka = []", "matryoshka = [256, 4, 2]")
    assert allowing != card
    (tmp_path / f"{MODEL}.toml").write_text(allowing, encoding="utf-8")
    return tmp_path


@pytest.fixture
def settings(url: str, docs: Connection, catalogue: Path) -> Settings:
    """One sync with whole vectors of 300 rows, and one whose vectors are cut."""
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 300) g")
    both = (sync_of("docs"), sync_of("docs", "cut", target=CUT))
    return settings_for(url, *both, catalogue_dirs=(catalogue,))


def kept(docs: Connection, table: str) -> dict[str, Vector]:
    rows = docs.execute(f"SELECT d.body, t.embedding::text FROM {table} t JOIN docs d USING (id)".encode())
    return {body: as_vector(vector) for body, vector in rows}


def wrong(docs: Connection, table: str, dimension: int) -> list[str]:
    """Texts whose vector is not the beginning of the model's, at length one."""
    found, judge = kept(docs, table), NullEncoder()
    texts = list(found)
    whole = judge.encode(judge.tokenize(texts))
    wanted = [vector[:dimension] / np.linalg.norm(vector[:dimension]) for vector in whole]
    return [
        text
        for text, vector in zip(texts, wanted, strict=True)
        if len(found[text]) != dimension or not np.allclose(found[text], vector, atol=1e-6)
    ]


@pytest.mark.parametrize("kind", ["vector", "halfvec", "real[]"])
def test_two_syncs_of_one_model_each_have_their_own_cut(
    url: str, docs: Connection, catalogue: Path, kind: str
) -> None:
    """They share the encoder, and the vectors that it has made lately."""
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 300) g")
    both = (sync_of("docs"), sync_of("docs", "cut", target={**CUT, "type": kind}))
    encoder = NullEncoder()
    with running(settings_for(url, *both, catalogue_dirs=(catalogue,)), encoder) as worker:
        wait_fresh(worker)
        docs.execute("UPDATE docs SET body = 'edited ' || id WHERE id % 3 = 0")
        wait_fresh(worker)
        docs.execute("UPDATE docs SET body = 'text ' || id WHERE id % 3 = 0")
        wait_fresh(worker)
    assert len(kept(docs, "docs_cut")) == len(kept(docs, "docs_embedding")) == 300
    assert wrong(docs, "docs_embedding", 8) == []
    if kind != "halfvec":
        assert wrong(docs, "docs_cut", 4) == []
    fingerprints = docs.execute("SELECT DISTINCT fingerprint FROM docs_cut").fetchall()
    assert len(fingerprints) == 1
    assert bytes(fingerprints[0][0]) != encoder.fingerprint, "cut and whole are never compared"


def test_verify_compares_them_cut(settings: Settings, docs: Connection) -> None:
    encoder = NullEncoder()
    backfill(settings, encoder)
    docs.execute("SET freshvec.is_ours = on; UPDATE docs_cut SET embedding = '[1,0,0,0]' WHERE id = 7")
    models = Models(settings)
    dispatcher = models.dispatcher(MODEL, encoder)
    with connect(settings.database.url, "test") as connection:
        bound = plan(connection, settings.sync[1], models.describe_loaded(settings.sync[1], encoder)).bound
        report = verify(connection, bound)
        verify_vectors(connection, bound, dispatcher, report, 300)
    dispatcher.stop(timeout=2.0)
    assert (report.vectors, report.problems) == (300, {"wrong vector": 1})


def test_a_search_is_cut_alike(settings: Settings, docs: Connection) -> None:
    encoder = NullEncoder()
    backfill(settings, encoder)
    (query,) = encoder.encode(encoder.tokenize_queries(["text 42"]))
    with connect(settings.database.url, "test") as connection:
        model = Models(settings).describe_loaded(settings.sync[1], encoder)
        hits = search(connection, plan(connection, settings.sync[1], model).bound, query, 1)
    assert [(hit.key, hit.text) for hit in hits] == [(("42",), "text 42")]
    assert hits[0].similarity == pytest.approx(1.0, abs=1e-6)


def test_another_cut_is_another_definition(
    settings: Settings, models_dir: Path, encoder: OnnxEncoder, catalogue: Path
) -> None:
    daemon = {"models_dir": models_dir, "catalogue_dirs": (catalogue,), "precision": "fp32"}
    models = Models(settings.model_copy(update={"daemon": settings.daemon.model_copy(update=daemon)}))

    def described(**target: Any) -> Sync:
        return Sync.model_validate(sync_of("docs", target=target))

    whole, cut = models.describe(described()), models.describe(described(dimensions=256))
    assert (whole.dimension, cut.dimension) == (384, 256)
    assert whole == models.describe(described(dimensions=384)), "all of them is no cut"
    assert (
        len({whole.fingerprint, cut.fingerprint, models.describe(described(dimensions=4)).fingerprint}) == 3
    )
    assert models.describe_loaded(described(dimensions=256), encoder) == cut
    assert set(models.artefact(MODEL).classes()) >= {whole.fingerprint, cut.fingerprint}


def test_status_knows_another_cut_without_the_models_files(settings: Settings) -> None:
    backfill(settings, NullEncoder())
    otherwise = settings.sync[1].model_copy(
        update={"target": settings.sync[1].target.model_copy(update={"dimensions": 2})}
    )
    with connect(settings.database.url, "test") as connection:
        assert amiss(connection, settings.sync) == {}
        assert [one.state for one in amiss(connection, [otherwise]).values()] == ["not as declared"]


@pytest.mark.parametrize(
    ("allowed", "said"),
    [
        (
            "[256, 128]",
            "its vectors may be cut to 128, 256, 384, and to nothing else. Write one of 128, 256, 384",
        ),
        ("[]", "its card lists no dimension to which its vectors may be cut. Write one of 384"),
    ],
)
def test_what_the_card_does_not_list_is_refused(
    models_dir: Path, tmp_path: Path, allowed: str, said: str
) -> None:
    card = (REPOSITORY / "models" / f"{MODEL}.toml").read_text(encoding="utf-8")
    (tmp_path / "card.toml").write_text(card.replace("matryoshka = []", f"matryoshka = {allowed}"))
    given = {"models_dir": models_dir, "catalogue_dirs": (tmp_path,)}
    models = Models(Settings.model_validate({"daemon": given}))
    sync = Sync.model_validate(sync_of("docs", target={"dimensions": 100}))
    with pytest.raises(FreshvecError, match="with 100 dimensions for sync 'docs'") as refused:
        models.describe(sync)
    assert said in str(refused.value)


def test_a_cut_of_zeros_stays_zeros() -> None:
    assert shortened(np.array([0, 0, 3, 4], np.float32), 2).tolist() == [0, 0]
    assert shortened(np.array([3, 4, 12], np.float32), 2).tolist() == pytest.approx([0.6, 0.8])
