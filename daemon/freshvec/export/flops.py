"""The cost of one token: the multiplications and additions of a graph's weight matrices."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

# Operators that multiply every token by a weight matrix. A lookup in a table (Gather, the fused embedding
# layer) multiplies nothing. The work of attention between tokens grows with the text and is left out.
_MULTIPLIES = frozenset(("MatMul", "Gemm", "Attention", "FusedMatMul", "FusedGemm", "GemmFastGelu"))


def flops_per_token(proto: "onnx.ModelProto") -> int:
    """Floating-point operations per token: two per element of a weight matrix, each time the matrix is used.

    `proto` is an encoder with weights in floating point; it may be loaded without its external data.
    """
    from onnx import TensorProto

    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
    matrices: dict[str, int] = {
        weight.name: math.prod(weight.dims)
        for weight in proto.graph.initializer
        if len(weight.dims) == 2 and weight.data_type in floats
    }
    used = (name for node in proto.graph.node if node.op_type in _MULTIPLIES for name in node.input)
    return 2 * sum(matrices.get(name, 0) for name in used)
