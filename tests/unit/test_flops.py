"""FLOPs per token: what is counted of a graph, and what is not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support import MODEL, NEEDS_EXPORT

pytest.importorskip("onnx", reason=NEEDS_EXPORT)

import onnx
from onnx import TensorProto, helper, numpy_helper

from freshvec.export.flops import flops_per_token


def graph(nodes: list[onnx.NodeProto], weights: dict[str, NDArray[Any]]) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    return helper.make_model(helper.make_graph(nodes, "g", [value], [value], initializers))


def test_of_minilm_it_is_the_matrices_of_six_layers(models_dir: Path) -> None:
    proto = onnx.load(str(models_dir / MODEL / "fp32.onnx"), load_external_data=False)
    assert flops_per_token(proto) == 2 * 6 * (4 * 384**2 + 2 * 384 * 1536) == 21_233_664


def test_lookups_biases_and_whole_numbers_are_not_multiplied() -> None:
    weights: dict[str, NDArray[Any]] = {
        "table": np.zeros((1000, 8), np.float32),
        "bias": np.zeros(8, np.float32),
        "positions": np.zeros((512, 8), np.float32),
        "whole": np.zeros((8, 8), np.int64),
        "w": np.zeros((8, 3), np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x0"]),
        helper.make_node("Add", ["x0", "positions"], ["x1"]),
        helper.make_node("MatMul", ["x1", "whole"], ["x2"]),
        helper.make_node("Gemm", ["x2", "w", "bias"], ["x"]),
    ]
    assert flops_per_token(graph(nodes, weights)) == 2 * 8 * 3


def test_a_matrix_that_two_layers_share_counts_twice_and_half_precision_too() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("FusedMatMul", ["y", "w"], ["x"], domain="com.microsoft"),
    ]
    assert flops_per_token(graph(nodes, {"w": np.zeros((4, 4), np.float16)})) == 2 * 2 * 16
    assert flops_per_token(graph([], {"w": np.zeros((4, 4), np.float16)})) == 0
