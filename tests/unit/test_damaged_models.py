"""A model whose files cannot be used is an error of that model, for which its syncs wait and no others."""

import hashlib
import shutil
from pathlib import Path

import pytest

from freshvec.encoding.encoder import OnnxEncoder
from freshvec.encoding.tokenizer import Tokenizer
from freshvec.errors import ModelError, UnusableModelError
from freshvec.models.artefact import Artefact
from tests.support import MODEL, models_in


@pytest.fixture
def folder(models_dir: Path, tmp_path: Path) -> Path:
    """A copy of the real model's folder, but for its graphs."""
    shutil.copytree(models_dir / MODEL, tmp_path / MODEL, ignore=shutil.ignore_patterns("*.onnx*"))
    return tmp_path / MODEL


def opened(folder: Path) -> Artefact:
    return models_in(folder.parent).artefact(MODEL)


def test_a_manifest_that_is_no_text(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b'{"card": "\xff"}')
    with pytest.raises(UnusableModelError, match="its manifest is unusable"):
        opened(folder)


def test_a_graph_that_the_runtime_refuses_on_a_cpu(folder: Path) -> None:
    """As one of a newer onnx than it knows, though its checksum is right."""
    (folder / "fp32.onnx").write_bytes(b"x")
    artefact = opened(folder)
    fp32 = artefact.graphs["fp32"].model_copy(
        update={"sha256": hashlib.sha256(b"x").hexdigest(), "data_sha256": None}
    )
    graphs = {**artefact.graphs, "fp32": fp32}
    with pytest.raises(ModelError, match="onnxruntime refuses its fp32 graph") as refused:
        OnnxEncoder(artefact.model_copy(update={"graphs": graphs}), "cpu", precision="fp32")
    assert refused.value.remedy


def test_a_tokenizer_of_another_version(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="tokenizers cannot read it"):
        Tokenizer(tmp_path / "tokenizer.json", 256)
