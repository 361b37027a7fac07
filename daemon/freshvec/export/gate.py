"""The gate of an exported graph: how near its embeddings are to torch fp32 on real texts; also its speed."""

import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from freshvec.encoding.batching import padded, plan_batches
from freshvec.encoding.cosine import cosines
from freshvec.encoding.session import OnnxSession
from freshvec.errors import UsageError
from freshvec.models.artefact import Graph, Precision, checksum, data_of
from freshvec.models.catalogue import ModelCard
from freshvec.records import Tokens, Vector
from freshvec.stdlib_texts import docstrings

GATES: dict[Precision, float] = {"fp32": 0.99999, "fp16": 0.999, "int8": 0.98}
_TEXTS = 256
_BATCH = 1024  # padded tokens
_ALONE = 8  # one in so many texts is encoded alone, too
_ROUNDS = 3  # of timing


def parse_precisions(given: Iterable[str]) -> tuple[Precision, ...]:
    """The precisions named on the command line, in the order of GATES. Raises UsageError."""
    wrong = [f"--precision {name}: write one of {', '.join(GATES)}" for name in given if name not in GATES]
    if wrong:
        raise UsageError(*wrong)
    return tuple(precision for precision in GATES if precision in given)


def parse_gates(given: Iterable[str]) -> dict[Precision, float]:
    """GATES, changed by what the command line gives as `int8=0.99`. Raises UsageError."""
    gates, wrong = dict(GATES), []
    for text in given:
        name, _, value = text.partition("=")
        try:
            precision = next(each for each in GATES if each == name)
            gates[precision] = float(value)
            if not 0 <= gates[precision] <= 1:
                raise ValueError
        except (StopIteration, ValueError):
            possible = ", ".join(GATES)
            wrong.append(
                f"--gate {text}: write one of {possible}, =, and a cosine from 0 to 1, as in int8=0.99"
            )
    if wrong:
        raise UsageError(*wrong)
    return gates


def texts(count: int = _TEXTS) -> list[str]:
    """`count` real texts of all lengths: docstrings of the standard library, evenly chosen."""
    every = [text for _, text in docstrings()]
    return every[:: max(1, len(every) // count)][:count]


def reference(model: Any, card: ModelCard, tokens: list[Tokens], pad_id: int) -> Vector:
    """Embeddings by the torch model, float32 `[texts, dimension]`: what every graph is compared with."""
    import torch

    vectors = np.empty((len(tokens), card.dimension), dtype=np.float32)
    with torch.inference_mode():
        for batch in _batches(tokens):
            ids, mask = padded([tokens[i] for i in batch], pad_id)
            hidden = model(
                input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)
            ).last_hidden_state
            kept = torch.from_numpy(mask).unsqueeze(-1).float()
            pooled = hidden[:, 0] if card.pooling == "cls" else (hidden * kept).sum(1) / kept.sum(1)
            vectors[batch] = (torch.nn.functional.normalize(pooled) if card.normalize else pooled).numpy()
    return vectors


def measure(
    path: Path, tokens: list[Tokens], expected: Vector, pad_id: int, fp32: Path | None = None
) -> Graph:
    """Compare the graph at `path` with `expected`, the embeddings `[texts, dimension]` of `tokens`.

    It encodes them in batches, and some of them alone. `fp32` is a graph to time it against; without one its
    speed is 1. Raises what the runtime raises when it refuses the graph.
    """
    session = OnnxSession(path, pad_id, device="cpu")
    batched = _encode(session, tokens, expected.shape[1])
    some = list(range(0, len(tokens), _ALONE))
    alone = np.concatenate([session.run([tokens[i]]) for i in some])
    against = cosines(batched, expected)
    return Graph(
        sha256=checksum(path),
        data_sha256=_data_checksum(path),
        megabytes=_bytes(path) / 1e6,
        worst_cosine=float(against.min()),
        mean_cosine=float(against.mean()),
        worst_batched=float(cosines(batched[some], alone).min()),
        speed=_speed(session, OnnxSession(fp32, pad_id, device="cpu"), tokens, expected.shape[1])
        if fp32
        else 1.0,
    )


def _speed(session: OnnxSession, fp32: OnnxSession, tokens: list[Tokens], dimension: int) -> float:
    """How many times as fast as the fp32 graph on this CPU; they take turns, and the median round counts."""
    ratios = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        _encode(fp32, tokens, dimension)
        between = time.perf_counter()
        _encode(session, tokens, dimension)
        ratios.append((between - began) / (time.perf_counter() - between))
    return round(statistics.median(ratios), 2)


def _encode(session: OnnxSession, tokens: list[Tokens], dimension: int) -> Vector:
    vectors = np.empty((len(tokens), dimension), dtype=np.float32)
    for batch in _batches(tokens):
        vectors[batch] = session.run([tokens[i] for i in batch])
    return vectors


def _batches(tokens: list[Tokens]) -> list[list[int]]:
    return [batch.indices for batch in plan_batches([len(text) for text in tokens], lambda: _BATCH)]


def _bytes(path: Path) -> int:
    return sum(part.stat().st_size for part in (path, data_of(path)) if part.exists())


def _data_checksum(path: Path) -> str | None:
    return checksum(data_of(path)) if data_of(path).exists() else None
