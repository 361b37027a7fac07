"""Every architecture of the catalogue goes through export, in tiny models with random weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HuggingFaceTokenizer

from freshvec.encoding.encoder import OnnxEncoder
from freshvec.encoding.tokenizer import Tokenizer
from freshvec.errors import ModelError
from freshvec.export.export import export
from freshvec.models.artefact import Artefact
from tests.support import NEEDS_EXPORT

pytest.importorskip("torch", reason=NEEDS_EXPORT)

from tests.tiny_models import CARD, bert, byte_level, mpnet, unigram, wordpiece, xlm_roberta


@pytest.fixture
def folder(tiny_bert: Path, tmp_path: Path) -> Path:
    """A copy of a tiny BERT, to be changed."""
    return Path(shutil.copytree(tiny_bert, tmp_path / "source"))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("make", [bert, xlm_roberta, mpnet])
def test_an_architecture_is_exported_in_every_precision(
    make: Callable[[Path], None], pooling: str, tmp_path: Path, gate_texts: list[str]
) -> None:
    make(tmp_path)
    card = CARD.model_copy(
        update={"pooling": pooling, "normalize": pooling == "mean", "document_prefix": "passage: "}
    )
    made = export(card, tmp_path / "models", tmp_path, texts=gate_texts)
    assert {"fp32", "fp16"} <= set(made.graphs), made.rejected
    assert made.pad_id == json.loads((tmp_path / "config.json").read_text())["pad_token_id"]
    assert made.flops_per_token == 2 * 2 * (4 * 64**2 + 2 * 64 * 128)
    for precision, graph in made.graphs.items():
        assert graph.worst_batched > 1 - 1e-5, precision
    encoder = OnnxEncoder(Artefact.open(tmp_path / "models", card), "cpu")
    tokens = encoder.tokenize(["a", "a text of some words, and more " * 30, "another one"])
    assert [len(text) for text in tokens][1] == card.max_tokens, "the prefix counts, too"
    batch = encoder.encode(tokens)
    for row, text in zip(batch, tokens, strict=True):
        assert np.abs(row - encoder.encode([text])[0]).max() <= 1e-5
    lengths = np.linalg.norm(batch, axis=1)
    assert np.allclose(lengths, 1, atol=1e-5) == card.normalize


def described(folder: Path, **files: object) -> None:
    """Write sentence-transformers' files into a folder: modules, pooling, limit."""
    names = {
        "modules": "modules.json",
        "pooling": "1_Pooling/config.json",
        "limit": "sentence_bert_config.json",
    }
    for key, content in files.items():
        path = folder / names[key]
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))


def modules(*kinds: str) -> list[dict[str, str]]:
    return [{"type": f"sentence_transformers.models.{kind}", "path": kind} for kind in kinds]


@pytest.mark.parametrize(
    ("changed", "files", "message"),
    [
        ({"dimension": 32}, {}, "dimension is 32, config.json says 64"),
        ({"max_tokens": 65}, {}, "max_tokens is 65, the model has positions for 64"),
        ({"max_tokens": 48}, {"limit": {"max_seq_length": 32}}, "max_tokens is 48, it reads 32"),
        (
            {},
            {"pooling": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}},
            "pooling is mean, its own is cls",
        ),
        ({}, {"pooling": {"pooling_mode": "lasttoken"}}, "pooling is mean, its own is lasttoken"),
        ({}, {"modules": modules("Transformer", "Pooling", "Dense")}, "go through Dense as well"),
        (
            {"normalize": False},
            {"modules": modules("Transformer", "Pooling", "Normalize")},
            "its own vectors are normalised",
        ),
    ],
)
def test_a_card_that_does_not_fit_its_folder_is_refused(
    changed: dict[str, Any], files: dict[str, object], message: str, folder: Path, tmp_path: Path
) -> None:
    described(folder, **files)
    with pytest.raises(ModelError, match="does not fit") as caught:
        export(CARD.model_copy(update=changed), tmp_path / "models", folder)
    assert message in str(caught.value)
    assert not list(tmp_path.glob("models/*"))


def test_a_card_that_fits_its_folder_is_exported(folder: Path, tmp_path: Path, gate_texts: list[str]) -> None:
    pooling = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    described(
        folder,
        modules=modules("Transformer", "Pooling", "Normalize"),
        pooling=pooling,
        limit={"max_seq_length": 64},
    )
    made = export(CARD, tmp_path / "models", folder, precisions=("fp32",), texts=gate_texts)
    assert "fp32" in made.graphs


def test_bytes_that_are_not_the_catalogues_are_refused_with_both_checksums(
    folder: Path, tmp_path: Path
) -> None:
    pinned = CARD.model_copy(update={"sha256": {"model.safetensors": "0" * 64}})
    with pytest.raises(
        ModelError, match=r"sha256 of .*model\.safetensors is [0-9a-f]{64}, the catalogue says 0{64}"
    ):
        export(pinned, tmp_path / "models", folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        export(CARD, tmp_path / "models", folder)


def test_an_installed_package_is_a_source_only_when_its_bytes_match(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate_texts: list[str]
) -> None:
    (tmp_path / "a_model_package.py").write_text(f"def get_model_path():\n    return {str(tiny_bert)!r}\n")
    monkeypatch.syspath_prepend(tmp_path)
    card = CARD.model_copy(update={"package": "a_model_package"})
    made = export(card, tmp_path / "models", precisions=("fp32",), texts=gate_texts)
    assert "fp32" in made.graphs
    with pytest.raises(ModelError, match="the catalogue says"):
        export(card.model_copy(update={"sha256": {"config.json": "0" * 64}}), tmp_path / "models")


@pytest.fixture(scope="module", params=[wordpiece, unigram, byte_level])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    request.param().save(str(path))
    return path


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.sampled_from(["word", " ", "  ", "\n", "\t", "long" * 9, "é", "漢字", "a,b", "\u00a0", "▁"]),
        max_size=200,
    )
)
def test_cutting_a_long_text_changes_no_token_of_any_kind_of_tokenizer(saved: Path, parts: list[str]) -> None:
    text = "".join(parts)
    (ours,) = Tokenizer(saved, 16).encode([text])
    library = HuggingFaceTokenizer.from_file(str(saved))
    library.enable_truncation(16)
    assert ours.ids.tolist() == library.encode(text).ids
