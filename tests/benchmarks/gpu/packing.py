"""Packing: no padding between the layers. The graph is converted once; its attention comes in two kinds."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.gpu.right import cosines
from tests.benchmarks.gpu.setting import Setting, rates
from tests.benchmarks.gpu.variants import (
    FLASH_PACKED,
    NO_CUDNN,
    PAGE,
    encode,
    kernels,
    planned,
    session,
    vectors,
)


def packed(graph: Path) -> Any:
    """The graph with PackedAttention, which projects and attends in one operator."""
    import onnx
    from onnxruntime.transformers.convert_to_packing_mode import PackingMode
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = OnnxModel(onnx.load(str(graph)))
    PackingMode(model).convert(use_symbolic_shape_infer=False)
    return model.model


def projected_apart(proto: Any) -> Any:
    """PackedAttention as a product and PackedMultiHeadAttention, which has FlashAttention."""
    from onnx import helper, numpy_helper

    constants = {entry.name: entry for entry in proto.graph.initializer}
    for node in [node for node in proto.graph.node if node.op_type == "PackedAttention"]:
        hidden, weight_name, bias, offset, lengths = node.input[:5]
        heads = next(entry.i for entry in node.attribute if entry.name == "num_heads")
        weight = numpy_helper.to_array(constants[weight_name])
        width, size = weight.shape[0], weight.shape[1] // 3 // heads
        # From Q, K and V one after the other to Q, K and V of each head together.
        mixed = weight.reshape(width, 3, heads, size).transpose(0, 2, 1, 3).reshape(weight.shape)
        constants[weight_name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(mixed), weight_name))
        shape = numpy_helper.from_array(np.array([-1, heads, 3, size], dtype=np.int64), f"{node.name}_shape")
        proto.graph.initializer.append(shape)
        product, apart = f"{node.name}_product", f"{node.name}_apart"
        at = list(proto.graph.node).index(node)
        proto.graph.node.remove(node)
        made = (
            helper.make_node("MatMul", [hidden, weight_name], [product], f"{node.name}_qkv"),
            helper.make_node("Reshape", [product, shape.name], [apart], f"{node.name}_heads"),
            helper.make_node(
                "PackedMultiHeadAttention",
                [apart, "", "", bias, offset, lengths],
                list(node.output),
                f"{node.name}_packed",
                domain="com.microsoft",
                num_heads=heads,
            ),
        )
        for place, each in enumerate(made):
            proto.graph.node.insert(at + place, each)
    return proto


def packing(setting: Setting) -> dict[str, Any]:
    """Experiment 4: both kinds beside padding, on the same batches, and their vectors against those of padding."""
    import onnx

    batches = planned(setting.tokens[: 8 * PAGE])
    texts, real = sum(b.texts for b in batches), sum(len(t) for b in batches for t in b.tokens)
    wanted = vectors(session(setting, NO_CUDNN), batches[::8])
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        graphs = {"PackedAttention": packed(setting.graph)}
        for name, proto in graphs.items():
            onnx.save(proto, f"{folder}/{name}.onnx")
        onnx.save(projected_apart(packed(setting.graph)), f"{folder}/PackedMultiHeadAttention.onnx")
        for name, env in (
            ("PackedAttention", NO_CUDNN),
            ("PackedMultiHeadAttention", NO_CUDNN),
            ("PackedMultiHeadAttention", FLASH_PACKED),
        ):
            key = name + (", flash" if env is FLASH_PACKED else "")
            try:
                path = Path(folder, f"{name}.onnx")
                made = session(setting, env, path)
                cold = encode(made, batches)
                warm = min(encode(made, batches) for _ in range(2))
                found[key] = {
                    "attention": kernels(setting, env, path),
                    "worst cosine": float(cosines(vectors(made, batches[::8]), wanted).min()),
                    "cold, s": cold,
                    **rates(setting, real, texts, warm),
                }
                pair = min(encode(made, batches, 2) for _ in range(2))
                found[key]["with two under way"] = rates(setting, real, texts, pair)
            except Exception as error:  # onnxruntime raises many kinds
                found[key] = {"error": str(error)[-300:]}
            print(key, found[key], flush=True)
    return found
