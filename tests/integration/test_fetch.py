"""Fetch: a published graph becomes a model without torch, from a stand-in for the hub, or is refused."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from freshvec.encoding.cosine import cosines
from freshvec.encoding.encoder import OnnxEncoder
from freshvec.encoding.tokenizer import Tokenizer
from freshvec.errors import ModelError
from freshvec.models import catalogue
from freshvec.models.artefact import checksum
from freshvec.models.catalogue import ModelCard, Published
from freshvec.models.reference import Reference
from tests.support import MODEL, NEEDS_EXPORT, models_in

pytest.importorskip("torch", reason=NEEDS_EXPORT)

from freshvec.export import gate
from freshvec.export.export import export, load_torch
from freshvec.export.fetch import fetch
from tests.tiny_models import CARD

REVISION = "0123456789012345678901234567890123456789"
TEXTS = ("one", "How do I return an order?", "word " * 90)
OPSETS = (11, 18)


@pytest.fixture(scope="module")
def hub(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a stand-in for the hub, and its folder: the tiny model in graphs of two versions."""
    from optimum.exporters.onnx import onnx_export_from_model

    top = tmp_path_factory.mktemp("hub")
    folder = top / CARD.source / "resolve" / REVISION
    (folder / "onnx").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(tiny_bert / name, folder)
    for opset in OPSETS:
        traced = tmp_path_factory.mktemp("traced")
        onnx_export_from_model(
            load_torch(tiny_bert),
            traced,
            opset=opset,
            task="feature-extraction",
            library_name="transformers",
            do_validation=False,
        )
        shutil.copy(traced / "model.onnx", folder / f"onnx/{opset}.onnx")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(top)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def _use(hub: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub[0])


def card_of(folder: Path, weights: Path, opset: int = OPSETS[0], **more: object) -> ModelCard:
    """A card that pins all of it."""
    pinned = {name: checksum(folder / name) for name in ("config.json", "tokenizer.json")}
    file = f"onnx/{opset}.onnx"
    return CARD.model_copy(
        update={
            "revision": REVISION,
            "sha256": {**pinned, "model.safetensors": checksum(weights / "model.safetensors")},
            "onnx": Published(file=file, sha256=checksum(folder / file)),
            **more,
        }
    )


@pytest.fixture
def cards(tiny_bert: Path, tmp_path: Path) -> Path:
    """A folder with the tiny model's stored vectors, as they are kept beside a card."""
    tokenizer = Tokenizer(tiny_bert / "tokenizer.json", CARD.max_tokens, CARD.document_prefix)
    vectors = gate.reference(load_torch(tiny_bert), CARD, tokenizer.encode(list(TEXTS)), 0)
    stored = Reference.of(checksum(tiny_bert / "model.safetensors"), TEXTS, vectors)
    (tmp_path / "cards").mkdir()
    (tmp_path / f"cards/{CARD.name}.vectors.json").write_text(stored.model_dump_json())
    return tmp_path / "cards"


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_fetched_model_is_the_exported_one(
    hub: tuple[str, Path], tiny_bert: Path, cards: Path, tmp_path: Path, opset: int, pooling: str
) -> None:
    card = card_of(hub[1], tiny_bert, opset, pooling=pooling)
    exported = export(card, tmp_path / "exported", tiny_bert, ("fp32",), texts=TEXTS)
    by_export = OnnxEncoder(exported, "cpu")
    expected = by_export.encode(by_export.tokenize(list(TEXTS)))
    stored = Reference.of(card.sha256["model.safetensors"], TEXTS, expected)
    (cards / f"{card.name}.vectors.json").write_text(stored.model_dump_json())
    fetched = fetch(card, tmp_path / "models", None, [cards])
    encoder = OnnxEncoder(fetched, "cpu")
    vectors = encoder.encode(encoder.tokenize(list(TEXTS)))
    assert float(cosines(vectors, expected).min()) > 0.999999
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert fetched.fingerprint("fp32") == exported.fingerprint("fp32"), "no row is encoded again"
    assert fetched.flops_per_token == exported.flops_per_token
    assert (tmp_path / "models" / card.name / "fp32.onnx").stat().st_mode & 0o777 == 0o644


def test_files_in_a_folder_will_do(
    hub: tuple[str, Path], tiny_bert: Path, cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    made = fetch(card_of(hub[1], tiny_bert), tmp_path / "models", hub[1], [cards])
    assert made.graphs["fp32"].worst_cosine > 0.99999
    with pytest.raises(ModelError, match=r"HF_ENDPOINT names a mirror"):
        fetch(card_of(hub[1], tiny_bert), tmp_path / "models", None, [cards])
    assert (tmp_path / "models" / CARD.name / "manifest.json").exists(), "the one that is there stays"


REFUSED = {
    "other bytes": ({"onnx": Published(file="onnx/11.onnx", sha256="0" * 64)}, "the catalogue says 0000"),
    "other pooling": ({"pooling": "cls"}, "worst cosine against the stored vectors"),
    "no pins": ({"sha256": {}}, r"lacks the sha256 of model.safetensors, the sha256 of tokenizer.json"),
    "nothing published": ({"onnx": None}, r"lacks \[onnx\]"),
    "no vectors": ({"name": "other"}, "there are no stored vectors"),
    "no such file": ({"onnx": Published(file="onnx/none.onnx", sha256="0" * 64)}, "404"),
    "another shape": ({"dimension": 65}, "its card does not fit"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_told_to_be_the_model_is_refused(
    hub: tuple[str, Path],
    tiny_bert: Path,
    cards: Path,
    tmp_path: Path,
    change: dict[str, object],
    message: str,
) -> None:
    card = card_of(hub[1], tiny_bert).model_copy(update=change)
    with pytest.raises(ModelError, match=message):
        fetch(card, tmp_path / "models", None, [cards])
    assert not [*(tmp_path / "models").glob("*")], "nothing is left"


def test_vectors_of_other_weights_are_refused(
    hub: tuple[str, Path], tiny_bert: Path, cards: Path, tmp_path: Path
) -> None:
    card = card_of(hub[1], tiny_bert)
    card = card.model_copy(update={"sha256": card.sha256 | {"model.safetensors": "1" * 64}})
    with pytest.raises(ModelError, match="of other weights"):
        fetch(card, tmp_path / "models", None, [cards])


def test_the_command_needs_no_torch(
    hub: tuple[str, Path], tiny_bert: Path, cards: Path, tmp_path: Path
) -> None:
    card = card_of(hub[1], tiny_bert)
    assert card.onnx is not None
    (cards / "tiny.toml").write_text(
        f'name = "tiny"\nsource = "{card.source}"\nrevision = "{REVISION}"\ndimension = 64\nmax_tokens = 48\n'
        f'pooling = "mean"\n[onnx]\nfile = "{card.onnx.file}"\nsha256 = "{card.onnx.sha256}"\n[sha256]\n'
        + "\n".join(f'"{name}" = "{digest}"' for name, digest in card.sha256.items())
    )
    (tmp_path / "freshvec.toml").write_text(f"[daemon]\ncatalogue_dirs = {json.dumps([str(cards)])}\n")
    without = "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'optimum')))"
    code = f"{without}; from freshvec.cli.main import main; main()"
    options = ["--config", str(tmp_path / "freshvec.toml"), "--models-dir", str(tmp_path / "models")]
    done = subprocess.run(
        [sys.executable, "-c", code, "fetch", "tiny", *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "tiny is installed in" in done.stdout
    assert models_in(tmp_path / "models", catalogue_dirs=[cards]).artefact("tiny").graphs.keys() == {"fp32"}


def test_the_stored_vectors_of_the_catalogue_are_the_models(encoder: OnnxEncoder) -> None:
    stored = Reference.find(catalogue.find(MODEL))
    assert stored is not None
    assert stored.weights_sha256 == catalogue.find(MODEL).sha256["model.safetensors"]
    vectors = encoder.encode(encoder.tokenize(list(stored.texts)))
    assert float(cosines(vectors, stored.matrix()).min()) >= gate.GATES["fp32"]
