"""The graph without padding between its layers: what it is made of, and that a worker does without it."""

from pathlib import Path

import numpy as np
import pytest
from loguru import logger
from numpy.typing import NDArray

from freshvec.encoding.encoder import OnnxEncoder
from freshvec.encoding.session import OnnxSession
from freshvec.models.artefact import Artefact, checksum
from tests.support import MODEL, NEEDS_EXPORT, models_in

pytest.importorskip("onnx", reason=NEEDS_EXPORT)

import onnx
from onnx import numpy_helper

from freshvec.export import packing


@pytest.fixture(scope="module")
def padded(models_dir: Path) -> onnx.ModelProto:
    return onnx.load(str(models_dir / MODEL / "fp16.onnx"))


def kinds(proto: onnx.ModelProto) -> dict[str, int]:
    """How many nodes there are of each kind."""
    found: dict[str, int] = {}
    for node in proto.graph.node:
        found[node.op_type] = found.get(node.op_type, 0) + 1
    return found


def weight(proto: onnx.ModelProto, name: str) -> NDArray[np.float16]:
    found = next(entry for entry in proto.graph.initializer if entry.name == name)
    return np.asarray(numpy_helper.to_array(found), dtype=np.float16)


def test_every_attention_works_on_packed_tokens_and_padding_comes_back_before_pooling(
    padded: onnx.ModelProto,
) -> None:
    before = kinds(padded)
    given = onnx.ModelProto()
    given.CopyFrom(padded)
    changed = packing.packed(given, flat=False, apart=False)
    assert changed is not None
    after = kinds(changed)
    assert "Attention" not in after
    assert "PackedAttention" not in after
    assert after["PackedMultiHeadAttention"] == before["Attention"] == 6
    assert (after["RemovePadding"], after["RestorePadding"]) == (1, 1)
    order = [node.op_type for node in changed.graph.node]
    attending = [place for place, kind in enumerate(order) if kind == "PackedMultiHeadAttention"]
    assert order.index("RemovePadding") < attending[0]
    made: set[str] = {entry.name for entry in (*changed.graph.input, *changed.graph.initializer)}
    for node in changed.graph.node:
        assert {name for name in node.input if name} <= made, node.name
        made.update(node.output)
    name = next(node.input[1] for node in padded.graph.node if node.op_type == "Attention")
    assert np.array_equal(weight(changed, name), packing.by_head(weight(padded, name), 12))


def test_a_projection_by_head_has_the_columns_of_each_head_together() -> None:
    heads, size, width = 3, 2, 5
    # A column is named by what it projects to: Q, K or V, the head, and the place in the head.
    names = [
        100 * part + 10 * head + place for part in range(3) for head in range(heads) for place in range(size)
    ]
    mixed = packing.by_head(np.tile(names, (width, 1)), heads)
    wanted = [
        100 * part + 10 * head + place for head in range(heads) for part in range(3) for place in range(size)
    ]
    assert mixed.tolist() == [wanted] * width


def test_a_graph_without_such_attention_stays_as_it_is(models_dir: Path) -> None:
    assert packing.packed(onnx.load(str(models_dir / MODEL / "fp32.onnx"))) is None


@pytest.fixture
def with_packed(models_dir: Path, tmp_path: Path) -> Artefact:
    """The real model, its fp32 graph put in the place of a packed one."""
    artefact = models_in(models_dir).artefact(MODEL)
    for name in ("fp32.onnx", "fp32.onnx.data", "tokenizer.json"):
        (tmp_path / name).symlink_to(artefact.folder / name)
    (tmp_path / "fp32.packed.onnx").symlink_to(artefact.folder / "fp32.onnx")
    sha256 = checksum(artefact.folder / "fp32.onnx")
    graph = artefact.graphs["fp32"].model_copy(update={"packed_sha256": sha256})
    return artefact.model_copy(update={"folder": tmp_path, "graphs": {"fp32": graph}})


def chosen(artefact: Artefact) -> tuple[bool, list[str]]:
    """Whether the packed graph is taken in the place of the padded one, and what is said."""
    said: list[str] = []
    sink = logger.add(said.append, level="WARNING", format="{message}")
    try:
        encoder = OnnxEncoder(artefact, "cpu")
        padded = OnnxSession(artefact.path("fp32"), artefact.pad_id)
        return encoder._without_padding("fp32", "cpu", padded) is not padded, said
    finally:
        logger.remove(sink)


def test_a_packed_graph_with_the_same_vectors_is_taken(with_packed: Artefact) -> None:
    assert chosen(with_packed) == (True, [])


def test_a_packed_graph_that_cannot_run_here_is_left_with_one_warning(
    with_packed: Artefact, padded: onnx.ModelProto
) -> None:
    given = onnx.ModelProto()
    given.CopyFrom(padded)
    changed = packing.packed(given)
    path = with_packed.folder / "fp32.packed.onnx"
    path.unlink()
    onnx.save(changed, str(path))
    graph = with_packed.graphs["fp32"].model_copy(update={"packed_sha256": checksum(path)})
    taken, said = chosen(with_packed.model_copy(update={"graphs": {"fp32": graph}}))
    assert not taken
    assert len(said) == 1
    assert "stay padded" in said[0]


def test_a_packed_graph_with_other_vectors_is_left_with_one_warning(
    with_packed: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("freshvec.encoding.encoder._SAME", 1.1)
    taken, said = chosen(with_packed)
    assert not taken
    assert len(said) == 1
    assert "not the same" in said[0]


def test_a_packed_graph_that_is_not_the_exported_one_is_not_looked_at(with_packed: Artefact) -> None:
    graph = with_packed.graphs["fp32"].model_copy(update={"packed_sha256": "0" * 64})
    other = with_packed.model_copy(update={"graphs": {"fp32": graph}})
    assert other.packed_path("fp32") is None
    assert chosen(other) == (False, [])
