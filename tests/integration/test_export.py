"""Export: the real model passes its gate in every precision; a graph that does not pass is left out."""

from concurrent.futures import ThreadPoolExecutor
from errno import ENOSPC
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from freshvec.encoding.batching import plan_batches
from freshvec.encoding.cosine import cosines
from freshvec.encoding.encoder import OnnxEncoder
from freshvec.encoding.session import OnnxSession
from freshvec.encoding.tokenizer import Tokenizer
from freshvec.errors import ModelError
from freshvec.models.artefact import MANIFEST, Artefact, Precision, checksum, data_of
from tests.support import MODEL, NEEDS_EXPORT, freshvec, models_in

pytest.importorskip("torch", reason=NEEDS_EXPORT)

import onnx

from freshvec.export import gate, graph, int8
from freshvec.export.export import PRECISIONS, export
from tests.tiny_models import CARD


@pytest.fixture(scope="module")
def artefact(models_dir: Path) -> Artefact:
    """The real model, in every precision."""
    return models_in(models_dir).artefact(MODEL)


@pytest.fixture(scope="module")
def int8_encoder(models_dir: Path) -> OnnxEncoder:
    return models_in(models_dir, device="cpu", precision="int8").encoder(MODEL)


def test_every_graph_of_the_real_model_passes_its_gate(artefact: Artefact) -> None:
    assert set(artefact.graphs) == set(PRECISIONS)
    assert artefact.rejected == {}
    for precision, made in artefact.graphs.items():
        assert made.worst_cosine >= gate.GATES[precision]
        assert made.worst_batched >= 1 - 1e-5
    assert artefact.graphs["int8"].megabytes < artefact.graphs["fp32"].megabytes / 3.5


def test_int8_is_near_fp32_on_texts_the_gate_has_not_seen(
    encoder: OnnxEncoder, int8_encoder: OnnxEncoder
) -> None:
    unseen = [text[20:] for text in gate.texts(60)]
    texts = [
        "a",
        "!",
        "word " * 400,
        "\U0001f642 emoji",
        "SELECT 1",
        *(text for text in unseen if text.strip()),
    ]
    tokens = encoder.tokenize(texts)
    exact, near = np.empty((len(texts), 384), "f4"), np.empty((len(texts), 384), "f4")
    for batch in plan_batches([len(text) for text in tokens], lambda: 2048):
        exact[batch.indices] = encoder.encode([tokens[i] for i in batch.indices])
        near[batch.indices] = int8_encoder.encode([tokens[i] for i in batch.indices])
    assert float(cosines(near, exact).min()) >= gate.GATES["int8"]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.text(min_size=1, max_size=120), min_size=1, max_size=12))
def test_a_batch_gives_the_vectors_of_single_texts(
    encoder: OnnxEncoder, int8_encoder: OnnxEncoder, texts: list[str]
) -> None:
    for each in (encoder, int8_encoder):
        tokens = each.tokenize(texts)
        batched = each.encode(tokens)
        assert batched.shape == (len(texts), 384)
        for row, text in zip(batched, tokens, strict=True):
            assert np.abs(row - each.encode([text])[0]).max() <= 1e-5


def test_int8_vectors_are_a_class_of_their_own(
    encoder: OnnxEncoder, int8_encoder: OnnxEncoder, artefact: Artefact
) -> None:
    assert int8_encoder.precision == "int8"
    assert int8_encoder.fingerprint != encoder.fingerprint == artefact.fingerprint("fp16")


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), min_size=1, max_size=9))
def test_rows_are_rounded_to_the_nearest_of_their_own_levels(rows: list[list[float]]) -> None:
    matrix: NDArray[np.float32] = np.array(rows, dtype=np.float32)
    levels, scale = int8.by_row(matrix, 64)
    assert np.abs(levels).max() <= 64, (
        "a pair of products with more does not fit in the 16 bits of older processors"
    )
    assert (np.abs(levels * scale[:, None] - matrix) <= scale[:, None] * 0.5001).all()


@pytest.fixture(scope="module")
def under_its_gate(
    tiny_bert: Path, gate_texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Artefact:
    """A tiny model whose int8 graph was under its gate."""
    folder = tmp_path_factory.mktemp("models")
    gates: dict[Precision, float] = {"int8": 0.9999}
    return export(CARD, folder, tiny_bert, ("int8",), gates, texts=gate_texts)


def test_a_graph_under_its_gate_is_not_installed_and_says_why(under_its_gate: Artefact) -> None:
    assert set(under_its_gate.graphs) == {"fp32"}
    assert "under 0.9999" in under_its_gate.rejected["int8"]
    assert not (under_its_gate.folder / "int8.onnx").exists()
    with pytest.raises(ModelError, match=r"under 0\.9999"):
        Artefact.open(under_its_gate.folder.parent, CARD).path("int8")


def test_a_full_disk_is_not_the_models_fault(
    tiny_bert: Path, gate_texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object, **named: object) -> None:
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(graph, "save", full)
    with pytest.raises(ModelError, match=r"cannot write the fp32 graph .* No space left on device") as raised:
        export(CARD, tmp_path, tiny_bert, ("fp32",), texts=gate_texts)
    assert "pooling" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_installed_when_fp32_fails(
    under_its_gate: Artefact, tiny_bert: Path, gate_texts: list[str]
) -> None:
    folder = under_its_gate.folder.parent
    with pytest.raises(ModelError, match="fp32 graph"):
        export(CARD, folder, tiny_bert, ("fp32",), {"fp32": 1.1}, texts=gate_texts)
    assert Artefact.open(folder, CARD).graphs == under_its_gate.graphs, "what was there before stays"
    assert [path.name for path in folder.iterdir()] == [CARD.name], "and nothing is left behind"


def test_a_graph_too_large_for_one_file_has_its_weights_beside_it(artefact: Artefact, tmp_path: Path) -> None:
    path = tmp_path / "fp32.onnx"
    graph.save(onnx.load(artefact.path("fp32")), path, most_within=1_000_000)
    assert path.stat().st_size < 1_000_000 < data_of(path).stat().st_size
    tokens = Tokenizer(artefact.tokenizer_path, 256).encode(["one text", "another"])
    assert np.array_equal(OnnxSession(path, 0).run(tokens), OnnxSession(artefact.path("fp32"), 0).run(tokens))
    measured = gate.measure(path, tokens, OnnxSession(path, 0).run(tokens), 0)
    assert measured.data_sha256 is not None
    kept = artefact.model_copy(update={"folder": tmp_path, "graphs": {"fp32": measured}})
    assert kept.path("fp32") == path
    data_of(path).write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"fp32\.onnx\.data is missing or not the file"):
        kept.path("fp32")


def test_graphs_for_a_cpu_have_their_weights_beside_them_from_where_they_are_mapped(
    artefact: Artefact,
) -> None:
    for precision in ("fp32", "int8"):
        weights = data_of(artefact.path(precision))
        assert artefact.graphs[precision].data_sha256 == checksum(weights)
        session = OnnxSession(artefact.path(precision), 0)
        session.run(Tokenizer(artefact.tokenizer_path, 256).encode(["one text"]))
        assert str(weights.resolve()) in Path("/proc/self/maps").read_text()
    assert artefact.graphs["fp16"].data_sha256 is None


def test_the_command_exports_reports_and_fails_with_a_graph_that_was_asked_for(
    tiny_bert: Path, tmp_path: Path
) -> None:
    cards = tmp_path / "cards"
    cards.mkdir()
    (cards / "tiny.toml").write_text(
        "".join(f"{key} = {value!r}\n" for key, value in CARD.model_dump(exclude_defaults=True).items())
    )
    config = tmp_path / "freshvec.toml"
    config.write_text(f'[daemon]\nmodels_dir = "{tmp_path / "models"}"\ncatalogue_dirs = ["{cards}"]\n')
    command = ("export", CARD.name, "--from", str(tiny_bert), "--config", str(config), "--precision", "int8")
    apart = ("--models-dir", str(tmp_path / "others"))
    with ThreadPoolExecutor(2) as both:
        passing = both.submit(freshvec, *command)
        failing = both.submit(freshvec, *command, *apart, "--gate", "int8=0.99999")
        done, failed = passing.result(), failing.result()
    assert done.returncode == 0, done.stderr
    assert "int8" in done.stdout
    assert "fp16" not in done.stdout
    assert (tmp_path / "models" / CARD.name / MANIFEST).exists()
    assert failed.returncode == 1
    assert "int8 is not installed: its worst cosine against torch fp32 is 0.99" in " ".join(
        failed.stdout.split()
    )


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--precision", "fp8", "--precision fp8"),
        ("--gate", "int8=2", "--gate int8=2"),
        ("--gate", "int4=0.5", "--gate int4=0.5"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, option: str, value: str, message: str) -> None:
    done = freshvec("export", MODEL, "--models-dir", str(tmp_path), option, value)
    assert done.returncode == 2
    assert message in done.stderr


def test_the_daemon_runs_int8_when_told_to(models_dir: Path) -> None:
    for precision in PRECISIONS:
        made = models_in(models_dir, device="cpu", threads=1, precision=precision).encoder(MODEL)
        assert made.precision == ("int8" if precision == "int8" else "fp32"), "fp16 is for GPUs"
