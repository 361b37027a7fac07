"""A packed graph fed with packed tokens, and one with three products for Q, K and V: the same vectors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from freshvec.encoding.batching import flat, padded
from freshvec.encoding.cosine import cosines
from freshvec.encoding.session import OnnxSession
from freshvec.records import Tokens
from tests.support import NEEDS_EXPORT

pytest.importorskip("torch", reason=NEEDS_EXPORT)

import onnx
import torch
from onnx import numpy_helper
from transformers import AutoConfig, AutoModel

from freshvec.export import graph, packing
from tests.packed_ops import places, run
from tests.tiny_models import CARD, bert, xlm_roberta

WAYS = pytest.mark.parametrize(
    ("is_flat", "apart"), [(False, False), (True, False), (False, True), (True, True)]
)
LENGTHS = [[1], [2, 1, 2], [40, 3, 17, 1, 40], [48], [5] * 9]


def fused(folder: Path, make: Callable[[Path], None], pooling: str = "mean") -> onnx.ModelProto:
    """The padded fp16 graph of a tiny model; every bias is a random one, where transformers has zeros."""
    make(folder)
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    torch.manual_seed(2)
    for name, values in model.named_parameters():
        if name.endswith("bias"):
            values.data.normal_(std=0.5)
    traced = graph.trace(model, folder / "traced")
    proto = graph.halved(graph.fuse(traced, AutoConfig.from_pretrained(folder).to_dict(), "fp16"))
    graph.append_pooling(proto, CARD.model_copy(update={"pooling": pooling}))
    return proto


@pytest.fixture(scope="module", params=["mean", "cls"])
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return fused(tmp_path_factory.mktemp("bert"), bert, request.param)


def changed(proto: onnx.ModelProto, is_flat: bool = True, apart: bool = True) -> onnx.ModelProto:
    given = onnx.ModelProto()
    given.CopyFrom(proto)
    made = packing.packed(given, flat=is_flat, apart=apart)
    assert made is not None
    return made


def batches() -> list[list[Tokens]]:
    random = np.random.default_rng(3)
    return [[Tokens(random.integers(5, 600, length)) for length in lengths] for lengths in LENGTHS]


def test_a_batch_is_fed_what_removing_its_padding_gives() -> None:
    for batch, lengths in zip(batches(), LENGTHS, strict=True):
        made, (offset, ends) = flat(batch), places(np.array(lengths), max(lengths))
        assert made["token_offset"].tolist() == offset.tolist()
        assert made["cumulative_sequence_length"].tolist() == ends.tolist()


def inputs(proto: onnx.ModelProto) -> set[str]:
    return {entry.name for entry in proto.graph.input}


def kinds(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


def fed(proto: onnx.ModelProto, batch: list[Tokens], pad_id: int = 0) -> dict[str, NDArray[Any]]:
    """What a session feeds such a graph."""
    ids, mask = padded(batch, pad_id)
    plain = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    given = flat(batch) if "token_offset" in inputs(proto) else plain
    return {name: values for name, values in given.items() if name in inputs(proto)}


def on_cpu(proto: onnx.ModelProto, feed: dict[str, NDArray[Any]]) -> NDArray[Any]:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feed)[0])


def worst(proto: onnx.ModelProto, other: onnx.ModelProto, pad_id: int = 0) -> float:
    """The least cosine of a text's vectors by a packed graph and by the padded one."""
    return min(
        float(cosines(run(proto, fed(proto, batch, pad_id)), on_cpu(other, fed(other, batch, pad_id))).min())
        for batch in batches()
    )


@WAYS
def test_every_way_gives_the_padded_graphs_vectors(
    plain: onnx.ModelProto, is_flat: bool, apart: bool
) -> None:
    made = changed(plain, is_flat, apart)
    assert kinds(made).count("PackedMultiHeadAttention") == 2
    assert ("RemovePadding" not in kinds(made)) == is_flat
    assert kinds(made).count("MatMul") - kinds(plain).count("MatMul") == (6 if apart else 2)
    assert worst(made, plain) >= 0.9999


def test_a_packed_graph_reads_what_a_batch_has_and_nothing_else(plain: onnx.ModelProto) -> None:
    made = changed(plain)
    pooling = {"attention_mask"} if "ReduceSum" in kinds(plain) else set()
    row = {"input_ids", "position_ids", "token_offset", "cumulative_sequence_length"}
    assert inputs(made) == row | pooling
    read = {name for node in made.graph.node for name in node.input}
    assert {entry.name for entry in made.graph.initializer} <= read
    onnx.checker.check_model(made, full_check=False)


def test_the_embeddings_of_a_row_are_those_of_the_padded_batch(plain: onnx.ModelProto) -> None:
    """By the kernel of ONNX Runtime itself, which a CPU has too."""
    batch = batches()[2]
    found = []
    for proto, kind in ((changed(plain), "Reshape"), (plain, "EmbedLayerNormalization")):
        cut = onnx.ModelProto()
        cut.CopyFrom(proto)
        last = kinds(cut).index(kind)
        del cut.graph.node[last + 1 :]
        del cut.graph.output[:]
        name = cut.graph.node[last].output[0]
        cut.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT16, None))
        found.append(on_cpu(cut, fed(cut, batch)))
    row, whole = found
    assert row.tobytes() == whole[padded(batch, 0)[1] == 1].tobytes()


@pytest.fixture
def echo(plain: onnx.ModelProto, tmp_path: Path) -> OnnxSession:
    """A graph of a packed one's inputs that a CPU can run: it adds them up, one row for each text."""
    given = changed(plain).graph.input
    nodes = [
        onnx.helper.make_node("Cast", [entry.name], [f"{entry.name}_f"], to=onnx.TensorProto.FLOAT)
        for entry in given
    ]
    total = "token_offset_f"
    for entry in given:
        name, value = f"{entry.name}_f", f"{entry.name}_sum"
        if entry.name == "attention_mask":
            nodes.append(onnx.helper.make_node("Mul", [total, name], [value]))
        elif entry.name != "token_offset":
            nodes.append(onnx.helper.make_node("ReduceSum", [name], [f"{value}_of"], keepdims=0))
            nodes.append(onnx.helper.make_node("Add", [total, f"{value}_of"], [value]))
        else:
            continue
        total = value
    nodes.append(onnx.helper.make_node("Identity", [total], ["sentence_embedding"]))
    out = onnx.helper.make_tensor_value_info("sentence_embedding", onnx.TensorProto.FLOAT, ["texts", "n"])
    made = onnx.helper.make_graph(nodes, "echo", given, [out])
    opset = onnx.helper.make_opsetid("", 18)
    proto = onnx.helper.make_model(made, opset_imports=[opset], ir_version=plain.ir_version)
    onnx.save(proto, str(tmp_path / "echo.onnx"))
    return OnnxSession(tmp_path / "echo.onnx", 0)


def test_a_session_feeds_a_packed_graph_as_it_wants_and_through_its_buffers(echo: OnnxSession) -> None:
    for batch in [*batches(), *batches()[::-1]]:
        wanted = echo.run(batch)
        assert wanted.shape == (len(batch), max(map(len, batch)))
        assert echo.run_bound(echo.feed(batch)).tobytes() == wanted.tobytes()


def test_no_bias_is_left_where_attention_reads_it(plain: onnx.ModelProto) -> None:
    for node in changed(plain).graph.node:
        if node.op_type == "PackedMultiHeadAttention":
            query, key, value, bias = node.input[:4]
            assert not bias
            assert len({query, key, value}) == 3


def without_output_bias(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The first attention's output goes through no product whose bias is known."""
    given = onnx.ModelProto()
    given.CopyFrom(proto)
    node = next(node for node in given.graph.node if node.op_type == "SkipLayerNormalization")
    del node.input[4:]
    return given


def test_an_attention_whose_bias_cannot_be_moved_keeps_it(plain: onnx.ModelProto) -> None:
    other = without_output_bias(plain)
    made = changed(other)
    biases = [bool(node.input[3]) for node in made.graph.node if node.op_type == "PackedMultiHeadAttention"]
    assert biases == [True, False]
    assert worst(made, other) >= 0.9999


def test_a_query_without_bias_has_no_addition(plain: onnx.ModelProto) -> None:
    other = onnx.ModelProto()
    other.CopyFrom(plain)
    names = {node.input[2] for node in other.graph.node if node.op_type == "Attention"}
    for entry in other.graph.initializer:
        if entry.name in names:
            bias = numpy_helper.to_array(entry).copy()
            bias[: len(bias) // 3] = 0
            entry.CopyFrom(numpy_helper.from_array(bias, entry.name))
    made = changed(other)
    assert kinds(made).count("Add") == kinds(other).count("Add")
    assert worst(made, other) >= 0.9999


def test_positions_that_do_not_count_from_0_stay_in_the_graph(tmp_path: Path) -> None:
    """XLM-RoBERTa's begin behind the padding's id."""
    plain = fused(tmp_path, xlm_roberta)
    made = changed(plain)
    assert inputs(made) == inputs(plain)
    assert kinds(made).count("RemovePadding") == 1
    assert kinds(made).count("PackedMultiHeadAttention") == 2
    assert worst(made, plain, pad_id=1) >= 0.9999


def test_an_embedding_of_given_positions_stays_as_it_is(plain: onnx.ModelProto) -> None:
    other = onnx.ModelProto()
    other.CopyFrom(plain)
    node = next(node for node in other.graph.node if node.op_type == "EmbedLayerNormalization")
    node.input.append("token_type_ids_int32")
    assert inputs(changed(other)) == inputs(other)
