"""The graph for GPUs without padding between its layers: all real tokens of a batch stand in one row of
tokens.

Padding is put back before pooling. Attention between is FlashAttention over texts of any length, which has no
plan to be built for every new shape of a batch.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from freshvec.export import flat_inputs
from freshvec.export.projections import attention, with_three_products

if TYPE_CHECKING:
    import onnx


def packed(proto: "onnx.ModelProto", *, flat: bool = True, apart: bool = True) -> "onnx.ModelProto | None":
    """A fused fp16 graph, changed to packed tokens; None where its attention is of another kind.

    `flat`: its inputs are packed already, where its embedding allows that; `apart`: Q, K and V are made by
    products of their own, where the biases can be moved. Raises what ONNX Runtime's conversion raises for a
    graph it does not know.
    """
    from onnxruntime.transformers.convert_to_packing_mode import PackingMode
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = OnnxModel(proto)
    PackingMode(model).convert(use_symbolic_shape_infer=False)
    graph = model.model.graph
    nodes = [node for node in graph.node if node.op_type == "PackedAttention"]
    for node in nodes:  # which has no FlashAttention, as PackedMultiHeadAttention after a product has
        made = (with_three_products(graph, node) if apart else None) or _with_one_product(graph, node)
        place = list(graph.node).index(node)
        graph.node.remove(node)
        for new in reversed(made):
            graph.node.insert(place, new)
    if not nodes:
        return None
    if flat:
        flat_inputs.flatten(graph)
    _drop_unused(graph)
    model.topological_sort()  # the conversion puts its own nodes at the end
    changed: onnx.ModelProto = model.model
    return changed


def by_head(weight: NDArray[Any], heads: int) -> NDArray[Any]:
    """A projection's columns, all Q, all K, all V, in another order: Q, K and V of each head together."""
    width, columns = weight.shape
    apart = weight.reshape(width, 3, heads, columns // 3 // heads)
    return np.ascontiguousarray(apart.transpose(0, 2, 1, 3)).reshape(width, columns)


def _with_one_product(graph: Any, node: Any) -> list[Any]:
    """A product, its columns by head, and PackedMultiHeadAttention in the place of a PackedAttention."""
    from onnx import helper, numpy_helper

    hidden, weight, bias = node.input[:3]
    heads = next(entry.i for entry in node.attribute if entry.name == "num_heads")
    kept = next(entry for entry in graph.initializer if entry.name == weight)
    values = numpy_helper.to_array(kept)
    kept.CopyFrom(numpy_helper.from_array(by_head(values, heads), weight))
    shape = np.array([-1, heads, 3, values.shape[1] // 3 // heads], dtype=np.int64)
    graph.initializer.append(numpy_helper.from_array(shape, f"{node.name}_shape"))
    product, together = f"{node.name}_product", f"{node.name}_by_head"
    return [
        helper.make_node("MatMul", [hidden, weight], [product], f"{node.name}_qkv"),
        helper.make_node("Reshape", [product, f"{node.name}_shape"], [together], f"{node.name}_reshape"),
        attention(node, [together, "", "", bias]),
    ]


def _drop_unused(graph: Any) -> None:
    """Constants that no node reads any more go."""
    read = {name for node in graph.node for name in node.input}
    for place in reversed(range(len(graph.initializer))):
        if graph.initializer[place].name not in read:
            del graph.initializer[place]
