"""What fp16 cannot hold: encoded by the fp32 graph, which is loaded once; where a graph cannot be loaded, no
text is blamed."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from freshvec.encoding.encoder import OnnxEncoder
from freshvec.encoding.session import OnnxSession
from freshvec.errors import EncodingError, ModelError
from freshvec.records import OutOfMemoryError, Tokens, Vector
from tests.support import MODEL, models_in


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
