"""bf16 through OpenVINO on the real model: near fp32, the same in any batch, bounded, quiet. `make amx`."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freshvec.bench import measure
from freshvec.encoding import openvino_session
from freshvec.encoding.cosine import cosines
from freshvec.encoding.encoder import OnnxEncoder
from freshvec.encoding.loading import Models
from freshvec.encoding.trial import LEAST_BATCHED, LEAST_COSINE, Trials
from freshvec.export import gate
from tests.staleness import stale
from tests.support import MODEL, Connection, backfill, count, models_in, settings_for, sync_of

refusal = openvino_session.refusal()
pytestmark = pytest.mark.skipif(refusal is not None, reason=refusal.problem if refusal else "")


@pytest.fixture(scope="module")
def bf16(models_dir: Path) -> OnnxEncoder:
    return models_in(models_dir, device="cpu", precision="bf16").encoder(MODEL)


def test_its_vectors_pass_the_gate_on_real_texts(encoder: OnnxEncoder, bf16: OnnxEncoder) -> None:
    texts = gate.texts()
    tokens = bf16.tokenize(texts)
    exact = np.concatenate([encoder.encode(tokens[i : i + 8]) for i in range(0, len(tokens), 8)])
    near = np.concatenate([bf16.encode(tokens[i : i + 8]) for i in range(0, len(tokens), 8)])
    assert float(cosines(near, exact).min()) >= LEAST_COSINE
    assert float(cosines(near, exact).max()) < 1 - 1e-7, "it computes in fp32"
    assert np.abs(np.linalg.norm(near, axis=1) - 1).max() < 1e-6, "lengths are made 1 in fp32"


@settings(deadline=None, max_examples=25)
@given(st.lists(st.text(min_size=1, max_size=120), min_size=1, max_size=12))
def test_a_batch_gives_the_vectors_of_single_texts(bf16: OnnxEncoder, texts: list[str]) -> None:
    tokens = bf16.tokenize(texts)
    alone = np.concatenate([bf16.encode([text]) for text in tokens])
    assert float(cosines(bf16.encode(tokens), alone).min()) >= LEAST_BATCHED


def test_it_is_a_class_of_its_own(bf16: OnnxEncoder, encoder: OnnxEncoder) -> None:
    assert (bf16.precision, bf16.device) == ("bf16", "cpu")
    assert bf16.fingerprint != encoder.fingerprint


def test_threads_that_encode_at_once_get_their_own_vectors(bf16: OnnxEncoder) -> None:
    texts = bf16.tokenize([f"text number {number} " * number for number in range(1, 9)])
    wanted = [bf16.encode([text])[0] for text in texts]
    wrong: list[int] = []

    def encode(number: int) -> None:
        for _ in range(20):
            if float(wanted[number] @ bf16.encode([texts[number]])[0]) < LEAST_BATCHED:
                wrong.append(number)

    threads = [threading.Thread(target=encode, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_memory_is_bounded_over_the_shapes_of_a_backfill(models_dir: Path) -> None:
    """Kernels are compiled for each shape; a few are kept."""
    program = f"""
from freshvec.bench.throughput import one_pass
from freshvec.pipeline.progress import resident_mib
from tests.benchmarks.harness import texts
from tests.support import models_in
encoder = models_in({str(models_dir)!r}, device='cpu', precision='bf16').encoder({MODEL!r})
one_pass(encoder, texts(1500), 1024)
before = resident_mib()
one_pass(encoder, texts(1600)[::-1], 1024)
print(before, resident_mib())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=250)
    before, after = map(float, done.stdout.split())
    assert after <= before * 1.05
    assert after <= 450


def test_it_does_nothing_while_nothing_is_to_be_done(bf16: OnnxEncoder) -> None:
    bf16.encode(bf16.tokenize(["a text"]))
    busy, began = time.process_time(), time.monotonic()
    threading.Event().wait(2.0)
    assert (time.process_time() - busy) / (time.monotonic() - began) < 0.05


def test_nothing_is_reported_to_anybody(models_dir: Path) -> None:
    """OpenVINO brings a package that reports; it is never loaded."""
    program = (
        "import sys; from tests.support import models_in\n"
        f"encoder = models_in({str(models_dir)!r}, device='cpu', precision='bf16').encoder({MODEL!r})\n"
        "encoder.encode(encoder.tokenize(['a text']))\n"
        "assert 'openvino' in sys.modules\n"
        "sys.exit('openvino_telemetry' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 0


def test_a_trial_is_made_once_and_kept(models_dir: Path, tmp_path: Path) -> None:
    artefact = models_in(models_dir).artefact(MODEL)
    made = Trials(tmp_path).of(artefact, None)
    assert made is not None
    assert made.passes
    began = time.monotonic()
    assert Trials(tmp_path).of(artefact, None) == made
    assert time.monotonic() - began < 0.1
    damaged = artefact.graphs | {"fp32": artefact.graphs["fp32"].model_copy(update={"sha256": "another"})}
    assert Trials(tmp_path).of(artefact.model_copy(update={"graphs": damaged}), None) is None, (
        "not tried again"
    )


def test_bench_shows_it(models_dir: Path) -> None:
    artefact = models_in(models_dir).artefact(MODEL)
    assert ("bf16", "cpu") in measure.lineup(artefact, ["cpu"])


def test_a_backfill_in_bf16_is_fresh(url: str, docs: Connection, models_dir: Path) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text number ' || g FROM generate_series(1, 50) g")
    settings = settings_for(url, sync_of("docs"), models_dir=models_dir, device="cpu", precision="bf16")
    encoder = Models(settings).encoder(MODEL)
    backfill(settings, encoder)
    assert count(docs, "docs_embedding WHERE embedding IS NOT NULL") == 50
    assert stale(docs, encoder) == []
