"""Whether bf16 is near enough to fp32 here, and how much quicker: tried once per model and machine."""

import contextlib
import itertools
import statistics
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger

from freshvec.encoding import quick_tokens
from freshvec.encoding.batching import plan_batches
from freshvec.encoding.cosine import cosines
from freshvec.encoding.encoder import OnnxEncoder
from freshvec.encoding.machine import machine
from freshvec.encoding.noted import note, read
from freshvec.errors import FreshvecError
from freshvec.models.artefact import Artefact, Precision
from freshvec.records import OutOfMemoryError, Tokens, Vector
from freshvec.stdlib_texts import docstrings

LEAST_COSINE = 0.999  # against fp32, of the worst text: the gate of fp16
LEAST_BATCHED = 0.9999  # of a text in a batch against the same text alone
QUICKER = 1.2  # times as fast at least, to be worth its memory
_TEXTS = 64
_BATCH = 1024  # padded tokens
_ALONE = 8  # one in so many texts is encoded alone, too
_ROUNDS = 3


@dataclass(frozen=True)
class Trial:
    """How bf16 did beside fp32: cosines of the worst text, and times as fast."""

    graph: str  # sha256 of what was tried
    library: str  # and the version that ran it
    worst_cosine: float
    worst_batched: float
    speed: float

    @property
    def passes(self) -> bool:
        """Whether its vectors are near enough, which any use of it takes."""
        return self.worst_cosine >= LEAST_COSINE and self.worst_batched >= LEAST_BATCHED

    @property
    def is_quicker(self) -> bool:
        """Whether it is worth using unasked."""
        return self.passes and self.speed >= QUICKER


class Trials:
    """What was tried, kept across restarts in one small file beside the exported models."""

    def __init__(self, models_dir: Path) -> None:
        self._path = models_dir / "trials.json"
        self._kept: dict[str, dict[str, str | float]] = read(self._path)  # without, all is tried again

    def of(self, artefact: Artefact, threads: int | None) -> Trial | None:
        """The trial of a model in bf16 on this machine, made where it was not; None where it does not run."""
        name = f"{artefact.card.name} in bf16 on {machine()}"
        asked = artefact.graphs["fp32"].sha256, version("openvino")
        with contextlib.suppress(KeyError, TypeError):
            given: dict[str, Any] = self._kept[name]
            kept = Trial(**given)  # what another version wrote is made anew
            if (kept.graph, kept.library) == asked:
                return kept
        try:
            made = Trial(*asked, *compare(artefact, threads))
        except (FreshvecError, OutOfMemoryError) as error:
            logger.warning("bf16 cannot be used: {}", error)
            return None
        logger.info(
            "{} in bf16 is {:.1f} times as fast as in fp32 here; worst cosine between them {:.5f}",
            artefact.card.name,
            made.speed,
            made.worst_cosine,
        )
        self._keep(name, asdict(made))
        return made

    def is_quick(self, artefact: Artefact) -> bool:
        """Whether nanotoken is here and makes the model's tokens; it is proved once where export did not."""
        package = quick_tokens.installed()
        if package is None:
            return False
        if artefact.quick_tokens == package:
            return True
        name, sought = f"{package} for tokenizer {artefact.tokenizer_sha256}", "difference"
        if name not in self._kept:
            found = quick_tokens.difference(artefact.tokenizer_path, artefact.card.max_tokens)
            self._keep(name, {sought: found or ""})
        problem = self._kept[name].get(sought)
        if problem:
            logger.info("{} is tokenised by tokenizers, not by {}: {}", artefact.card.name, package, problem)
        return not problem

    def last(self, model: str) -> Precision | None:
        """The class in which the model ran last, with these files; None where it is not known."""
        known: dict[str, Precision] = {"fp32": "fp32", "bf16": "bf16"}
        return known.get(str(self._kept.get(f"{model} at last", {}).get("class")))

    def note(self, model: str, precision: Precision) -> None:
        """It runs in that class now."""
        if self.last(model) != precision:
            self._keep(f"{model} at last", {"class": precision})

    def _keep(self, name: str, entry: dict[str, str | float]) -> None:
        self._kept[name] = entry
        note(self._path, name, entry)


def compare(artefact: Artefact, threads: int | None = None) -> tuple[float, float, float]:
    """Of bf16: the worst cosine against fp32, the worst of batch against single, and times as fast.

    They take turns, and the median round counts. Raises DeviceError, ModelError.
    """
    fp32 = OnnxEncoder(artefact, "cpu", threads, precision="fp32")
    bf16 = OnnxEncoder(artefact, "cpu", threads, precision="bf16")
    tokens = fp32.tokenize([text for _, text in itertools.islice(docstrings(), _TEXTS)])
    ratios = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        exact = _encode(fp32, tokens)
        between = time.perf_counter()
        near = _encode(bf16, tokens)
        ratios.append((between - began) / (time.perf_counter() - between))
    some = list(range(0, len(tokens), _ALONE))
    alone = np.concatenate([bf16.encode([tokens[i]]) for i in some])
    worst, batched = cosines(near, exact).min(), cosines(near[some], alone).min()
    return float(worst), float(batched), round(statistics.median(ratios), 2)


def _encode(encoder: OnnxEncoder, tokens: list[Tokens]) -> Vector:
    vectors = np.empty((len(tokens), encoder.dimension), dtype=np.float32)
    for batch in plan_batches([len(text) for text in tokens], lambda: _BATCH):
        vectors[batch.indices] = encoder.encode([tokens[i] for i in batch.indices])
    return vectors
