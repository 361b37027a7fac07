"""What fp16 cannot hold: encoded by the fp32 graph, which is loaded once; where a graph cannot be loaded, no
text is blamed."""

import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from freshvec.encoding.budget import BatchBudget
from freshvec.encoding.dispatch import Dispatcher
from freshvec.encoding.encoder import OnnxEncoder
from freshvec.encoding.session import OnnxSession
from freshvec.errors import EncodingError, ModelError
from freshvec.records import OutOfMemoryError, Tokens, Urgency, Vector
from tests.support import MODEL, models_in, until

PROBE = 5  # tokens of the text by which the dispatcher sees whether a runtime works


class NotFinite:
    """A graph whose vectors its precision cannot hold."""

    device = "cpu"

    def run(self, batch: list[Tokens]) -> Vector:
        return np.full((len(batch), 384), np.inf, dtype=np.float32)


@pytest.fixture
def overflowing(models_dir: Path) -> OnnxEncoder:
    encoder = models_in(models_dir, device="cpu").encoder(MODEL)
    encoder.precision, encoder.session = "fp16", NotFinite()
    return encoder


def test_what_fp16_cannot_hold_is_encoded_in_fp32_by_one_graph(
    overflowing: OnnxEncoder, encoder: OnnxEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[OnnxSession] = []

    def opens(*given: Any, **named: Any) -> OnnxSession:
        opened.append(OnnxSession(*given, **named))
        return opened[-1]

    monkeypatch.setattr("freshvec.encoding.encoder.OnnxSession", opens)
    tokens = encoder.tokenize(["some text"])
    with ThreadPoolExecutor(4) as lanes:
        found = list(lanes.map(lambda _: overflowing.encode(tokens), range(4)))
    assert all(np.allclose(vectors, encoder.encode(tokens), atol=1e-6) for vectors in found)
    assert len(opened) == 1


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(
    ("problem", "expected"),
    [("CUDA failure 2: out of memory ; GPU=0", OutOfMemoryError), ("of the runtime", EncodingError)],
)
def test_where_fp32_cannot_be_loaded_no_text_is_at_fault(
    overflowing: OnnxEncoder,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    problem: str,
    expected: type[Exception],
) -> None:
    def fail(*given: Any) -> None:
        raise RuntimeError(problem)

    overflowing.device = device
    monkeypatch.setattr("freshvec.encoding.encoder.OnnxSession", fail)
    with pytest.raises(expected) as raised:
        overflowing.encode(overflowing.tokenize(["some text"]))
    assert getattr(raised.value, "retryable", True)


def test_a_graph_that_could_not_be_loaded_again_is_tried_with_every_batch(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = models_in(models_dir, device="cpu").encoder(MODEL)
    tokens = encoder.tokenize(["some text"])
    before = encoder.encode(tokens)

    def fail(*given: Any) -> None:
        raise RuntimeError("no memory for it")

    with monkeypatch.context() as failing:
        failing.setattr("freshvec.encoding.encoder.OnnxSession", fail)
        with pytest.raises(ModelError, match="no memory for it"):
            encoder.rebuild()
        with pytest.raises(EncodingError, match=r"cannot be loaded again.*no memory for it") as raised:
            encoder.encode(tokens)
    assert raised.value.retryable
    assert np.array_equal(encoder.encode(tokens), before)


class Exhausted:
    """A graph that holds all memory, so that a long text finds none, and refuses short ones."""

    device = "cpu"

    def run(self, batch: list[Tokens]) -> Vector:
        if len(batch) == 1 and len(batch[0]) > 10:
            raise OutOfMemoryError("no room")
        if len(batch) == 1 and len(batch[0]) != PROBE:
            raise RuntimeError("it refuses this text")
        if len(batch) > 1:
            raise RuntimeError("it refuses one of them")
        return np.ones((1, 384), dtype=np.float32)


def test_a_session_is_gone_before_another_is_made(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its memory is not to be had, and the other finds none either."""
    encoder = models_in(models_dir, device="cpu").encoder(MODEL)
    encoder.session = Exhausted()
    old, was_gone = weakref.ref(encoder.session), list[bool]()

    def opens(*given: Any, **named: Any) -> OnnxSession:
        was_gone.append(old() is None)
        return OnnxSession(*given, **named)

    monkeypatch.setattr("freshvec.encoding.encoder.OnnxSession", opens)
    dispatcher, found = Dispatcher(encoder, BatchBudget(512)), list[list[Vector | Exception]]()
    texts = encoder.tokenize(["refused text", "a long text " * 20])
    dispatcher.submit(Urgency.LIVE, texts, 512, found.append)
    until("they are encoded", lambda: found)
    dispatcher.stop(10)
    refused, vector = found[0]
    assert "it refuses this text" in str(refused)
    assert isinstance(vector, np.ndarray)
    assert was_gone == [True]
