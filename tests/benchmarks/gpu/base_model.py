"""A graph of BERT-base's shape with random weights: for speed, where no trained base-size model can be had.

`base_model make SKELETON` traces and fuses it as an export does (needs the packages of an export) and keeps
it without its weights: a small file. `base_model fill SKELETON GRAPH` gives it seeded random ones again,
elsewhere.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from freshvec.models.catalogue import ModelCard

_WEIGHT = 1024  # numbers at least: smaller constants are shapes and axes, which stay


def make(skeleton: Path) -> None:
    """BERT-base's layers in fp16, pooled as MiniLM's are, its weights left out."""
    import onnx
    from transformers import AutoModel, BertConfig, BertModel

    from freshvec.export import graph

    config = BertConfig()
    with tempfile.TemporaryDirectory() as folder:
        BertModel(config).save_pretrained(folder)
        model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
        traced = graph.trace(model, Path(folder))
        proto = graph.halved(graph.fuse(traced, config.to_dict(), "fp16"))
    card = ModelCard(name="random-bert-base", source="none", dimension=768, max_tokens=256, pooling="mean")
    graph.append_pooling(proto, card)
    for entry in _weights(proto):
        entry.raw_data = b""
    onnx.save(proto, str(skeleton))


def fill(skeleton: Path, filled: Path) -> None:
    import onnx

    proto = onnx.load(str(skeleton))
    random = np.random.default_rng(0)
    for entry in _weights(proto):
        values = random.standard_normal(tuple(entry.dims), dtype=np.float32) * 0.02
        entry.raw_data = values.astype(np.float16).tobytes()
    onnx.save(proto, str(filled))


def _weights(proto: Any) -> list[Any]:
    from onnx import TensorProto

    halves = [entry for entry in proto.graph.initializer if entry.data_type == TensorProto.FLOAT16]
    return [entry for entry in halves if np.prod(tuple(entry.dims)) >= _WEIGHT]


if __name__ == "__main__":
    make(Path(sys.argv[2])) if sys.argv[1] == "make" else fill(Path(sys.argv[2]), Path(sys.argv[3]))
