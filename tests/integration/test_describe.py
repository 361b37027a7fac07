"""Cards that are written from models' own files: folders as sentence-transformers leaves them."""

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshvec.errors import ModelError
from freshvec.export.describe import describe, described, name_of, written
from freshvec.models.catalogue import ModelCard
from tests.support import NEEDS_EXPORT, Connection, config_toml, freshvec, write_config

pytest.importorskip("torch", reason=NEEDS_EXPORT)

from tests.integration.test_architectures import described as write_files
from tests.integration.test_architectures import modules
from tests.tiny_models import bert, mpnet, xlm_roberta

MEAN = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
README = "---\ntags:\n- a\nlicense: apache-2.0\n---\n# A model\n"


@pytest.fixture
def folder(tiny_bert: Path, tmp_path: Path) -> Path:
    """A tiny BERT, described as sentence-transformers does it."""
    made = Path(shutil.copytree(tiny_bert, tmp_path / "Our model"))
    write_files(made, modules=modules("Transformer", "Pooling", "Normalize"), pooling=MEAN)
    prompts = {"prompts": {"query": "query: ", "passage": "passage: "}}
    (made / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    (made / "README.md").write_text(README)
    return made


def test_a_card_says_what_the_files_say(folder: Path) -> None:
    card = describe(folder, "ours", "us/ours", revision="abc")
    assert (card.dimension, card.max_tokens, card.pooling, card.normalize) == (64, 64, "mean", True)
    assert (card.query_prefix, card.document_prefix) == ("query: ", "passage: ")
    assert (card.licence, card.revision, card.source) == ("apache-2.0", "abc", "us/ours")
    assert card.sha256.keys() == {"model.safetensors", "tokenizer.json", "config.json"}
    assert ModelCard.model_validate(tomllib.loads(written(card))) == card
    write_files(folder, limit={"max_seq_length": 32}, modules=modules("Transformer", "Pooling"))
    card = describe(folder, "ours", "us/ours", given={"query_prefix": "ask: "})
    assert (card.max_tokens, card.normalize, card.query_prefix) == (32, False, "ask: ")


@pytest.mark.parametrize("make", [bert, xlm_roberta, mpnet])
def test_the_limit_is_that_of_the_positions(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    unused = 0 if config["model_type"] == "bert" else config["pad_token_id"] + 1
    card = describe(tmp_path, "tiny", "us/tiny", given={"pooling": "cls"})
    assert card.max_tokens == config["max_position_embeddings"] - unused


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda at: (at / "model.safetensors").unlink(), "has no model.safetensors"),
    "no tokenizer": (lambda at: (at / "tokenizer.json").unlink(), "has no tokenizer.json"),
    "no pooling": (lambda at: shutil.rmtree(at / "1_Pooling"), "--pooling mean"),
    "other pooling": (
        lambda at: write_files(at, pooling={"pooling_mode": "lasttoken"}),
        "pools tokens by lasttoken",
    ),
    "two poolings": (
        lambda at: write_files(at, pooling=MEAN | {"pooling_mode_cls_token": True}),
        "by cls and mean",
    ),
    "another step": (
        lambda at: write_files(at, modules=modules("Transformer", "Pooling", "Dense")),
        "go through Dense",
    ),
    "code of its own": (lambda at: _set(at, auto_map={"AutoModel": "own.Model"}), "run code of its own"),
    "no shape": (lambda at: _set(at, hidden_size=None), "does not say its hidden_size"),
    "another JSON": (lambda at: (at / "config.json").write_text("[]"), "does not say its hidden_size"),
    "a list of poolings": (lambda at: (at / "1_Pooling/config.json").write_text("[1]"), "--pooling mean"),
    "no JSON": (lambda at: (at / "config.json").write_text("{"), "it is not JSON"),
}


@pytest.mark.parametrize("content", ["[]", '{"prompts": [1]}', '{"prompts": {"query": null}}', "7"])
def test_prompts_that_are_none_are_left_out(folder: Path, content: str) -> None:
    (folder / "config_sentence_transformers.json").write_text(content)
    (folder / "modules.json").write_text('{"type": 1}')
    assert describe(folder, "ours", "us/ours").query_prefix == ""


def test_another_pooling_that_is_said_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="pooling: input should be 'mean' or 'cls'"):
        describe(folder, "ours", "us/ours", given={"pooling": "max"})


def _set(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(("spoil", "message"), FAULTS.values(), ids=FAULTS.keys())
def test_what_cannot_be_described_is_said(
    folder: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(folder)
    with pytest.raises(ModelError, match=message):
        describe(folder, "ours", "us/ours")


@given(st.text(max_size=30))
def test_whatever_a_source_is_called_its_name_can_be_a_folders(source: str) -> None:
    name = name_of(source)
    assert name
    assert "/" not in name
    assert name not in (".", "..")


def test_names_that_are_no_names(folder: Path, tmp_path: Path) -> None:
    assert name_of(str(folder)) == "Our-model"
    assert name_of("intfloat/e5-small") == "e5-small"
    for source, name, message in (
        (str(folder), "../up", "cannot be called '../up'"),
        (str(tmp_path / "nothing"), "ours", "there is no such folder"),
        (str(folder), "bge-m3", "the catalogue has a model 'bge-m3'"),
    ):
        with pytest.raises(ModelError, match=message):
            described(source, name, {})


def test_the_command_and_a_sync_of_the_model(
    url: str, docs: Connection, folder: Path, tmp_path: Path
) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 5) g")
    sync = '[[sync]]\nname = "docs"\ntable = "docs"\ncolumns = ["body"]\nmodel = "Our-model"\n'
    config = str(write_config(tmp_path / "freshvec.toml", config_toml(url, tmp_path / "models", sync)))
    done = freshvec("backfill", "--config", config)
    assert done.returncode == 78
    assert "freshvec describe FOLDER" in done.stderr
    done = freshvec("describe", str(folder), "--models-dir", str(tmp_path / "models"))
    assert done.returncode == 0, done.stderr
    assert 'pooling = "mean"' in done.stdout
    assert "fp32" in done.stdout
    assert freshvec("backfill", "--config", config).returncode == 0
    dimensions = docs.execute("SELECT DISTINCT public.vector_dims(embedding) FROM docs_embedding").fetchall()
    assert dimensions == [(64,)]
    listed = freshvec("models", "--json", "--config", config)
    assert "Our-model" in [card["name"] for card in json.loads(listed.stdout)]
