"""nanotoken beside tokenizers: equal ids or no use of it, and a proof that would see a difference."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loguru import logger

from freshvec.encoding import quick_tokens
from freshvec.encoding.tokenizer import Tokenizer
from freshvec.encoding.trial import Trials
from freshvec.models.artefact import checksum
from tests.support import MODEL, NEEDS_EXPORT, models_in
from tests.unit.test_tokenizer import TEXT

pytest.importorskip("nanotoken", reason="nanotoken is not installed")
pytest.importorskip("torch", reason=NEEDS_EXPORT)

from tests.tiny_models import unigram


@pytest.fixture(scope="module")
def path(models_dir: Path) -> Path:
    return models_dir / MODEL / "tokenizer.json"


@pytest.fixture(scope="module", params=[8, 32, 256])
def pair(request: pytest.FixtureRequest, path: Path) -> tuple[Tokenizer, Tokenizer]:
    """One tokenizer of each library, with the same limit and prefix."""
    limit = request.param
    return Tokenizer(path, limit, "query: "), Tokenizer(path, limit, "query: ", is_quick=True)


@settings(deadline=None, max_examples=100)
@given(st.lists(TEXT, min_size=1, max_size=6))
def test_ids_and_cuts_are_those_of_tokenizers(pair: tuple[Tokenizer, Tokenizer], texts: list[str]) -> None:
    for theirs, ours in zip(*(each.encode(texts) for each in pair), strict=True):
        assert np.array_equal(theirs.ids, ours.ids)
        assert theirs.truncated == ours.truncated
        assert ours.ids.dtype == theirs.ids.dtype


def test_long_texts_are_cut_alike(pair: tuple[Tokenizer, Tokenizer]) -> None:
    texts = ["word " * 9000, "w" * 60_000, "", " " * 30_000 + "end", "🎉" * 9000]
    for theirs, ours in zip(*(each.encode(texts) for each in pair), strict=True):
        assert np.array_equal(theirs.ids, ours.ids)
        assert theirs.truncated == ours.truncated


def test_the_real_tokenizer_is_proved_equal(path: Path) -> None:
    assert quick_tokens.difference(path, 256) is None


@pytest.mark.parametrize("change", ["lowercase", "strip_accents", "handle_chinese_chars", "clean_text"])
def test_the_proof_sees_another_normaliser(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """The library is given another file than tokenizers reads."""
    changed = json.loads(path.read_text())
    changed["normalizer"][change] = False
    (tmp_path / "changed.json").write_text(json.dumps(changed))
    quick = quick_tokens.QuickTokens(tmp_path / "changed.json", 256)
    monkeypatch.setattr(quick_tokens, "QuickTokens", lambda path, max_tokens: quick)
    assert "are others" in str(quick_tokens.difference(path, 256))


def test_a_tokenizer_of_another_kind_falls_back_with_one_line(models_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    unigram().save(str(tmp_path / "model/tokenizer.json"))
    artefact = models_in(models_dir).artefact(MODEL)
    other = artefact.model_copy(
        update={
            "folder": tmp_path / "model",
            "quick_tokens": None,
            "tokenizer_sha256": checksum(tmp_path / "model/tokenizer.json"),
        }
    )
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    assert not Trials(tmp_path).is_quick(other)
    assert not Trials(tmp_path).is_quick(other), "it is remembered"
    logger.remove(sink)
    assert "is tokenised by tokenizers, not by nanotoken 0.1.0" in lines[0]
    assert len(lines) == 2


def test_what_export_proved_is_not_proved_again(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artefact = models_in(models_dir).artefact(MODEL)
    proved = artefact.model_copy(update={"quick_tokens": quick_tokens.installed()})
    calls: list[str] = []
    monkeypatch.setattr(quick_tokens, "difference", lambda *given: calls.append("made"))
    assert Trials(tmp_path).is_quick(proved)
    assert calls == []
    older = proved.model_copy(update={"quick_tokens": "nanotoken 0.0.9"})
    assert Trials(tmp_path).is_quick(older)
    assert Trials(tmp_path).is_quick(older)
    assert calls == ["made"], "once, and then remembered"
