"""Q, K and V of packed tokens by three products without biases: attention reads them where they are made.

One product for all three makes a row of Q, K and V per token, and attention's kernel first copies them apart
and adds the bias: a tenth of a batch's time. With three tensors and no bias it copies nothing.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def attention(node: Any, inputs: list[str]) -> Any:
    """PackedMultiHeadAttention of `inputs` (Q, K, V, bias) with the rest as a PackedAttention has it."""
    from onnx import helper

    offset, lengths = node.input[3:5]
    made = helper.make_node(
        "PackedMultiHeadAttention",
        [*inputs, offset, lengths],
        list(node.output),
        f"{node.name}_packed",
        domain="com.microsoft",
    )
    made.attribute.extend(entry for entry in node.attribute if entry.name in ("num_heads", "scale"))
    return made


def with_three_products(graph: Any, node: Any) -> list[Any] | None:
    """What takes the place of a PackedAttention; None where V's bias has nowhere to go.

    K's bias adds the same to all logits of a query, which softmax does not see. V's comes out of attention as
    it is, since the weights of a query sum to 1: it is added to the bias of the product that follows.
    """
    from onnx import helper, numpy_helper

    constants = {entry.name: entry for entry in graph.initializer}
    hidden, weight, bias = node.input[:3]
    follows = _product_after(graph, node.output[0], constants)
    if follows is None or weight not in constants or bias not in constants:
        return None
    of_query, _, of_value = np.split(numpy_helper.to_array(constants[bias]), 3)
    product, adding, place = follows
    old = [numpy_helper.to_array(constants[name]) for name in (product, adding.input[place])]
    adding.input[place] = f"{node.name}_moved_bias"
    graph.initializer.append(numpy_helper.from_array(_moved(of_value, *old), adding.input[place]))
    made, names = [], []
    weights = np.split(numpy_helper.to_array(constants[weight]), 3, axis=1)
    for part, values in zip("qkv", weights, strict=True):
        names.append(f"{node.name}_{part}")
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), f"{names[-1]}_weight"))
        made.append(helper.make_node("MatMul", [hidden, f"{names[-1]}_weight"], [names[-1]], names[-1]))
    if of_query.any():
        graph.initializer.append(numpy_helper.from_array(of_query, f"{names[0]}_bias"))
        biased = f"{names[0]}_biased"
        made.append(helper.make_node("Add", [names[0], f"{names[0]}_bias"], [biased], biased))
        names[0] = biased
    return [*made, attention(node, [*names, ""])]


def _moved(bias: NDArray[Any], weight: NDArray[Any], after: NDArray[Any]) -> NDArray[Any]:
    """The bias after a product that does what `bias` before it and `after` did."""
    exact = after.astype(np.float64) + bias.astype(np.float64) @ weight.astype(np.float64)
    return exact.astype(after.dtype)


def _product_after(graph: Any, attended: str, constants: dict[str, Any]) -> tuple[str, Any, int] | None:
    """The weight of the product that alone reads attention's output, the node that adds its bias, and the
    bias' place among that node's inputs."""
    product = _only_reader(graph, attended)
    if product is None or product.op_type != "MatMul" or product.input[0] != attended:
        return None
    adding = _only_reader(graph, product.output[0])
    if adding is None:
        return None
    if adding.op_type == "SkipLayerNormalization":
        place = 4
    elif adding.op_type == "Add":
        place = 1 - list(adding.input).index(product.output[0])
    else:
        return None
    named = product.input[1], adding.input[place] if len(adding.input) > place else ""
    if any(name not in constants for name in named) or len(constants[named[1]].dims) != 1:
        return None
    return named[0], adding, place


def _only_reader(graph: Any, name: str) -> Any:
    """The one node that reads a value; None where there are others, or none."""
    readers = [node for node in graph.node if name in node.input]
    return readers[0] if len(readers) == 1 and all(entry.name != name for entry in graph.output) else None
