"""The ONNX graphs of a model: traced by optimum, fused by ONNX Runtime's optimiser, pooling added.

Only `freshvec export` and `fetch` import this module; onnx, torch and optimum are loaded where they are used.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from freshvec.models.artefact import Precision, data_of
from freshvec.models.catalogue import ModelCard

if TYPE_CHECKING:
    import onnx

_MOST_WITHIN = 1_800_000_000  # bytes of weights: a protobuf file holds less than 2 GiB
# Since which version of ONNX' operators the axes are an input and no attribute.
_AXES_ARE_INPUTS = {"Squeeze": 13, "Unsqueeze": 13, "ReduceSum": 13, "ReduceL2": 18}


def trace(model: Any, folder: Path) -> Path:
    """The torch encoder as a plain ONNX graph in `folder`; its output is `[batch, length, hidden]`."""
    from optimum.exporters.onnx import onnx_export_from_model
    from optimum.utils import logging

    logging.set_verbosity_error()  # it asks for more packages, to check shared weights, which are none here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns about values that are constant here
        onnx_export_from_model(
            model, folder, task="feature-extraction", library_name="transformers", do_validation=False
        )
    return folder / "model.onnx"


def fuse(traced: Path, config: dict[str, Any], precision: Precision) -> "onnx.ModelProto":
    """The traced graph with its operators fused as is fastest on the devices that run that precision.

    `config` is the model's config.json. For a GPU everything possible is fused. On a CPU ONNX Runtime's
    SkipLayerNormalization takes five times as long as an addition and a LayerNormalization, and its Attention
    projects each head of each text by itself, which is slow for short texts. An int8 graph needs projections
    and tables as nodes of their own anyway.
    """
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    options = FusionOptions("bert")
    if precision != "fp16":
        options.enable_skip_layer_norm = options.enable_embed_layer_norm = False
        options.use_multi_head_attention = True
    optimised = optimizer.optimize_model(
        str(traced),
        "bert",
        num_heads=config["num_attention_heads"],
        hidden_size=config["hidden_size"],
        opt_level=0,
        optimization_options=options,
    )
    import onnx

    proto = optimised.model
    assert isinstance(proto, onnx.ModelProto)
    if all(entry.domain != "com.microsoft" for entry in proto.opset_import):
        proto.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return proto


def halved(proto: "onnx.ModelProto") -> "onnx.ModelProto":
    """The graph in fp16, its inputs and outputs as before.

    Shapes are not inferred: onnx does not know the fused operators, and nothing here depends on shapes.
    LayerNorm computes in fp32 on CUDA. Pooling stays in fp32, because it is added after the conversion.
    """
    import onnx
    from onnxruntime.transformers import float16

    converted = float16.convert_float_to_float16(proto, keep_io_types=True, disable_shape_infer=True)
    assert isinstance(converted, onnx.ModelProto)
    return converted


class Nodes:
    """New nodes and constants of a graph, in the order they are made; `prefix` begins their names."""

    def __init__(self, prefix: str, opset: int = _AXES_ARE_INPUTS["ReduceL2"]) -> None:
        """`opset` is the version of ONNX' operators that the graph is made of."""
        self._prefix = prefix
        self._opset = opset
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """A constant; its full name."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(values, f"{self._prefix}{name}"))
        return f"{self._prefix}{name}"

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """A node with one output; the output's name."""
        from onnx import helper

        self.nodes.append(
            helper.make_node(kind, inputs, [output], name=f"{self._prefix}{output}", **attributes)
        )
        return output

    def along(self, kind: str, given: str, output: str, **attributes: Any) -> str:
        """A node that works along axis 1, in whatever way its version wants that to be said."""
        if self._opset < _AXES_ARE_INPUTS[kind]:
            return self.add(kind, [given], output, axes=[1], **attributes)
        if not any(constant.name == f"{self._prefix}axis_1" for constant in self.constants):
            self.constant("axis_1", np.array([1], dtype=np.int64))
        return self.add(kind, [given, f"{self._prefix}axis_1"], output, **attributes)


def opset_of(proto: "onnx.ModelProto") -> int:
    """The version of ONNX' own operators in a graph."""
    return next(int(entry.version) for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))


def append_pooling(proto: "onnx.ModelProto", card: ModelCard) -> None:
    """Replace, in place, the output `[batch, length, hidden]` by `sentence_embedding`.

    That is float32 `[batch, hidden]`, pooled over the real tokens and normalised as the card says.
    """
    from onnx import TensorProto, helper

    hidden = proto.graph.output[0].name
    new = Nodes("freshvec_", opset_of(proto))
    if card.pooling == "cls":
        first = [
            new.constant(name, np.array([value], dtype=np.int64))
            for name, value in (("from", 0), ("to", 1), ("axis", 1))
        ]
        pooled = new.along("Squeeze", new.add("Slice", [hidden, *first], "cls"), "pooled")
    else:  # one matrix product with the mask sums the real tokens
        mask = new.add("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
        row = new.along("Unsqueeze", mask, "mask_row")
        summed = new.along("Squeeze", new.add("MatMul", [row, hidden], "summed_row"), "summed")
        count = new.along("ReduceSum", mask, "count", keepdims=1)
        pooled = new.add("Div", [summed, count], "pooled")
    if card.normalize:
        length = new.along("ReduceL2", pooled, "length", keepdims=1)
        new.add("Div", [pooled, length], "sentence_embedding")
    else:
        new.add("Identity", [pooled], "sentence_embedding")
    proto.graph.node.extend(new.nodes)
    proto.graph.initializer.extend(new.constants)
    del proto.graph.output[:]
    proto.graph.output.append(
        helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", card.dimension])
    )


def save(proto: "onnx.ModelProto", path: Path, most_within: int = _MOST_WITHIN) -> None:
    """Write the graph; weights of more than `most_within` bytes go to `<path>.data` beside it.

    From there they are mapped into memory, where a graph's own file would be read and copied: a session is
    there three times as soon, and all processes of a machine share what of them is not made over.
    """
    import onnx

    size = sum(len(tensor.raw_data) for tensor in proto.graph.initializer)
    onnx.save_model(proto, str(path), save_as_external_data=size > most_within, location=data_of(path).name)
