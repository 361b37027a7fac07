"""int8 for the CPU: weights have one scale per column, activations one per row, found while the graph runs.

Plain dynamic quantisation scales all activations of a batch by the largest, so one outlier costs every other
row its precision, and a text's vector depends on the other texts of its batch. Here each row (a token) has
its own scale a = max|x|, and y = a · (q(x / a) · q(W)): vector-wise quantisation as in LLM.int8() (Dettmers
et al., 2022, arXiv:2208.07339), without its fp16 outliers. The product is ONNX Runtime's
MatMulIntegerToFloat. The embedding tables are int8 with one scale per row as well.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from freshvec.export.graph import Nodes

if TYPE_CHECKING:
    import onnx

# Processors without VNNI add pairs of products in 16 bits; 2 · 255 · 64 fits, so the graph is right there
# too.
_WEIGHT_LEVELS = 64
_TABLE_LEVELS = 127
_LARGE_TABLE = 1_000_000  # numbers; smaller tables are not worth their extra operators


def quantise(proto: "onnx.ModelProto") -> None:
    """Make, in place, every product with a constant matrix and every lookup in a large table an int8 one."""
    from onnx import numpy_helper

    graph = proto.graph
    matrices = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 2}
    tables = {name for name, tensor in matrices.items() if tensor.dims[0] * tensor.dims[1] > _LARGE_TABLE}
    new = Nodes("freshvec_int8_")
    products = _Products(new)
    replaced = set()
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in matrices:
            activation, name = node.input
            products.add(activation, name, numpy_helper.to_array(matrices[name]), node.output[0])
        elif node.op_type == "Gather" and node.input[0] in tables:
            name, ids = node.input
            _lookup(new, name, numpy_helper.to_array(matrices[name]), ids, node.output[0])
        else:
            new.nodes.append(node)
            continue
        replaced.add(name)
    kept = [tensor for tensor in graph.initializer if tensor.name not in replaced]
    nodes = list(new.nodes)
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *new.constants])


class _Products:
    """Products of one graph; an activation that several matrices multiply is quantised once."""

    def __init__(self, new: Nodes) -> None:
        self._new = new
        self._rows: dict[str, tuple[str, str]] = {}
        self._axis = new.constant("axis", np.array([-1], dtype=np.int64))
        self._least = new.constant("least", np.array(1e-12, dtype=np.float32))  # the scale of a row of zeros
        self._step = new.constant("step", np.array(1 / 127, dtype=np.float32))
        self._middle = new.constant("middle", np.array(128, dtype=np.uint8))
        self._zero = new.constant("zero", np.array(0, dtype=np.int8))

    def add(self, activation: str, name: str, weights: NDArray[np.float32], output: str) -> None:
        """output `[…, n]` = activation `[…, k]` × weights `[k, n]`."""
        if activation not in self._rows:
            self._rows[activation] = self._quantise(activation)
        rows, scale = self._rows[activation]
        levels, column_scale = by_row(weights.T, _WEIGHT_LEVELS)
        matrix = self._new.constant(name, np.ascontiguousarray(levels.T))
        inputs = [
            rows,
            matrix,
            self._step,
            self._new.constant(f"{name}_scale", column_scale),
            self._middle,
            self._zero,
        ]
        raw = self._new.add("MatMulIntegerToFloat", inputs, f"{output}_rows", domain="com.microsoft")
        self._new.add("Mul", [raw, scale], output)

    def _quantise(self, activation: str) -> tuple[str, str]:
        """Names of the activation in uint8 around 128, and of the scale of each row, `[…, 1]`."""
        add = self._new.add
        largest = add("ReduceMax", [activation, self._axis], f"{activation}_largest", keepdims=1)
        smallest = add("ReduceMin", [activation, self._axis], f"{activation}_smallest", keepdims=1)
        scale = add(
            "Max",
            [largest, add("Neg", [smallest], f"{activation}_negated"), self._least],
            f"{activation}_scale",
        )
        shares = add("Div", [activation, scale], f"{activation}_shares")
        return add("QuantizeLinear", [shares, self._step, self._middle], f"{activation}_uint8"), scale


def _lookup(new: Nodes, name: str, table: NDArray[np.float32], ids: str, output: str) -> None:
    """output `[…, width]` = the rows of table `[rows, width]` at ids `[…]`."""
    from onnx import TensorProto

    levels, scale = by_row(table, _TABLE_LEVELS)
    row = new.add("Gather", [new.constant(name, levels), ids], f"{output}_int8")
    row = new.add("Cast", [row], f"{output}_levels", to=TensorProto.FLOAT)
    scale_of = new.add("Gather", [new.constant(f"{name}_scale", scale[:, None]), ids], f"{output}_scale")
    new.add("Mul", [row, scale_of], output)


def by_row(matrix: NDArray[np.float32], levels: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 values `[rows, columns]` from -levels to levels, and scales `[rows]`: values × scale ≈ matrix."""
    scale = np.abs(matrix).max(axis=1) / levels
    scale = np.where(scale == 0, 1, scale).astype(np.float32)
    return np.rint(matrix / scale[:, None]).astype(np.int8), scale
