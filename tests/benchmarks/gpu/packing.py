"""Packing: no padding between the layers. The graph is converted once; its attention comes in two kinds."""

import tempfile
from pathlib import Path
from typing import Any

from freshvec.export.packing import packed
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


def attention_in_one(graph: Path) -> Any:
    """The graph with PackedAttention, which projects and attends in one operator."""
    import onnx
    from onnxruntime.transformers.convert_to_packing_mode import PackingMode
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = OnnxModel(onnx.load(str(graph)))
    PackingMode(model).convert(use_symbolic_shape_infer=False)
    return model.model


def packing(setting: Setting) -> dict[str, Any]:
    """Experiment 4: both kinds beside padding, on the same batches, and their vectors against those of
    padding."""
    import onnx

    batches = planned(setting.tokens[: 8 * PAGE])
    texts, real = sum(b.texts for b in batches), sum(len(t) for b in batches for t in b.tokens)
    wanted = vectors(session(setting, NO_CUDNN), batches[::8])
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(attention_in_one(setting.graph), f"{folder}/PackedAttention.onnx")
        onnx.save(packed(onnx.load(str(setting.graph))), f"{folder}/PackedMultiHeadAttention.onnx")
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
