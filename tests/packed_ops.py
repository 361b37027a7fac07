"""What ONNX Runtime's kernels for GPUs do, in numpy, as their source says: a packed graph without a GPU."""

from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

Values = NDArray[Any]


def run(proto: onnx.ModelProto, feed: dict[str, Values]) -> Values:
    """The embeddings of a feed; the graph's weights are fp16, its sums fp32."""
    exact = onnx.ModelProto()
    exact.CopyFrom(proto)
    for entry in exact.graph.initializer:
        if entry.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(entry).astype(np.float32)
            entry.CopyFrom(numpy_helper.from_array(values, entry.name))
    (vectors,) = ReferenceEvaluator(exact, new_ops=OPERATORS).run(None, feed)
    return np.asarray(vectors)


def normalised(values: Values, gamma: Values, beta: Values, epsilon: float) -> Values:
    """LayerNorm."""
    centred = values - values.mean(axis=-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon)
    return np.asarray(centred / spread * gamma + beta)


class Operator(OpRun):  # type: ignore[misc]
    op_domain = "com.microsoft"


class EmbedLayerNormalization(Operator):
    def _run(
        self,
        ids: Values,
        segments: Values | None,
        word: Values,
        position: Values,
        segment: Values | None,
        gamma: Values,
        beta: Values,
        mask: Values | None = None,
        positions: Values | None = None,
        **_: Any,
    ) -> tuple[Values, ...]:
        assert ids.dtype == np.int32
        assert ids.ndim == 2
        places = np.arange(ids.shape[1])[None] if positions is None else positions
        assert places.shape in (ids.shape, (1, ids.shape[1]))
        values = word[ids] + position[places]
        if segment is not None:
            values = values + segment[np.zeros_like(ids) if segments is None else segments]
        hidden = normalised(values, gamma, beta, self.epsilon)
        if mask is None:
            return hidden, np.zeros(len(ids), dtype=np.int32)
        ended = np.concatenate([mask == 0, np.ones((len(mask), 1), dtype=bool)], axis=1)
        return hidden, ended.argmax(axis=1).astype(np.int32)


class SkipLayerNormalization(Operator):
    def _run(
        self, given: Values, skip: Values, gamma: Values, beta: Values, bias: Values | None = None, **_: Any
    ) -> tuple[Values]:
        assert given.shape == skip.shape
        values = given + skip if bias is None else given + skip + bias
        return (normalised(values, gamma, beta, self.epsilon),)


class BiasGelu(Operator):
    def _run(self, given: Values, bias: Values, **_: Any) -> tuple[Values]:
        import torch

        return (torch.nn.functional.gelu(torch.from_numpy(given + bias)).numpy(),)


class RemovePadding(Operator):
    def _run(self, given: Values, counts: Values, **_: Any) -> tuple[Values, ...]:
        offset, ends = places(counts, given.shape[1])
        rows = given.reshape(-1, given.shape[2])[offset.ravel()[: ends[-1]]]
        return rows, offset, ends, np.array([counts.max()], dtype=np.int32)


class RestorePadding(Operator):
    def _run(self, rows: Values, offset: Values, **_: Any) -> tuple[Values]:
        assert offset.dtype == np.int32
        assert rows.ndim == 2
        whole = np.zeros((offset.size, rows.shape[1]), dtype=rows.dtype)
        whole[offset.ravel()[: len(rows)]] = rows
        return (whole.reshape(*offset.shape, rows.shape[1]),)


class PackedMultiHeadAttention(Operator):
    def _run(
        self,
        query: Values,
        key: Values | None,
        value: Values | None,
        bias: Values | None,
        offset: Values,
        ends: Values,
        *_: Any,
        **__: Any,
    ) -> tuple[Values]:
        assert offset.dtype == ends.dtype == np.int32
        assert ends.shape == (len(offset) + 1,)
        if key is None:  # (tokens, heads, 3, head size)
            assert query.ndim == 4
            parts = [query[:, :, i].reshape(len(query), -1) for i in range(3)]
        else:
            assert value is not None
            assert query.shape == key.shape == value.shape == (ends[-1], query.shape[1])
            parts = [query, key, value]
        if bias is not None:
            parts = [part + one for part, one in zip(parts, np.split(bias, 3), strict=True)]
        heads = [part.reshape(len(query), self.num_heads, -1).transpose(1, 0, 2) for part in parts]
        scale = getattr(self, "scale", None) or heads[0].shape[2] ** -0.5
        made = np.empty_like(parts[0])
        for start, end in pairwise(ends):
            q, k, v = (part[:, start:end] for part in heads)
            logits = q @ k.transpose(0, 2, 1) * scale
            shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
            context = shares / shares.sum(axis=-1, keepdims=True) @ v
            made[start:end] = context.transpose(1, 0, 2).reshape(end - start, -1)
        return (made,)


def places(counts: Values, longest: int) -> tuple[Values, Values]:
    """What RemovePadding says of texts of so many tokens: `token_offset` and `cumulated_seq_len`."""
    real = [i * longest + j for i, count in enumerate(counts) for j in range(count)]
    rest = [i * longest + j for i, count in enumerate(counts) for j in range(count, longest)]
    offset = np.array([*real, *rest], dtype=np.int32).reshape(len(counts), longest)
    return offset, np.array([0, *np.cumsum(counts)], dtype=np.int32)


OPERATORS: list[type[Operator]] = [
    EmbedLayerNormalization,
    SkipLayerNormalization,
    BiasGelu,
    RemovePadding,
    RestorePadding,
    PackedMultiHeadAttention,
]
