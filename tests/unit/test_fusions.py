"""Which nodes onnxruntime may fuse on a device."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from freshvec.encoding import providers


@pytest.mark.parametrize(("device", "kept"), [("cuda:1", ["MatMul", "Add"]), ("cpu", ["Gemm"])])
def test_a_gpu_adds_a_bias_after_the_product(tmp_path: Path, device: str, kept: list[str]) -> None:
    """By a fusion's name, which onnxruntime does not check."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["xw"]), helper.make_node("Add", ["xw", "b"], ["y"])]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4])] for name in ("x", "y")]
    weights = {"w": np.eye(4, dtype=np.float32), "b": np.ones(4, dtype=np.float32)}
    given = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "biased", *ends, given)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    disabled, cpu = providers.disabled_optimizers(device), ["CPUExecutionProvider"]
    onnxruntime.InferenceSession(model.SerializeToString(), options, cpu, disabled_optimizers=disabled)
    assert [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node] == kept
