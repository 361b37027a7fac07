"""The machine, the texts and the model of a GPU run."""

import ast
import os
import platform
import statistics
import subprocess
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from embedsync.encoding import catalogue
from embedsync.encoding.artefact import Artefact
from embedsync.encoding.catalogue import ModelCard
from embedsync.encoding.model import OnnxEncoder
from embedsync.records import Tokens
from embedsync.stdlib_texts import _documented


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    packages = {}
    for name in ("onnxruntime-gpu", "onnxruntime", "torch", "sentence-transformers", "tokenizers", "psycopg"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "-"
    gpu = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "gpu": gpu,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "packages": packages,
    }


class Setting:
    """What the stages share."""

    def __init__(self, models: Path, model: str, more: Path | None, source: Path | None, rows: int) -> None:
        self.models = models
        self.folders = [more] if more else []
        self.card: ModelCard = catalogue.find(model, self.folders)
        self.rows = rows
        self._source = source

    @property
    def source(self) -> Path:
        """The model's own files."""
        return self._source or Path(import_module(self.card.package or "").get_model_path())

    @property
    def artefact(self) -> Artefact:
        return Artefact.open(self.models, self.card)

    @cached_property
    def encoder(self) -> OnnxEncoder:
        return OnnxEncoder(self.artefact, "cuda")

    def only_fp32(self) -> OnnxEncoder:
        """The same model with its fp32 graph on the GPU."""
        artefact = self.artefact
        return OnnxEncoder(artefact.model_copy(update={"graphs": {"fp32": artefact.graphs["fp32"]}}), "cuda")

    @cached_property
    def texts(self) -> list[str]:
        """Docstrings of every Python package of this machine: real prose about code, of all lengths, none twice."""
        found: dict[str, None] = {}
        for folder in {sysconfig.get_paths()[name] for name in ("stdlib", "purelib")} | set(
            os.environ.get("PYTHONPATH", "").split(":")
        ):
            for path in sorted(Path(folder).rglob("*.py")) if folder else ():
                try:
                    tree = ast.parse(path.read_text(encoding="utf-8"))
                except (SyntaxError, ValueError, OSError, RecursionError):
                    continue
                found.update((text.replace("\0", ""), None) for _, text in _documented(tree, ""))
        return list(found)

    def many(self, count: int) -> list[str]:
        """`count` texts; where there are too few, again with a number, so that no two are equal."""
        texts = self.texts
        return [texts[i % len(texts)] + (f" ({i // len(texts)})" if i >= len(texts) else "") for i in range(count)]

    @cached_property
    def tokens(self) -> list[Tokens]:
        """The first 100,000 texts, tokenised."""
        return self.encoder.tokenize(self.many(100_000))


class Sampler:
    """Samples the GPU's utilisation and memory while something runs."""

    def __init__(self) -> None:
        self.utilisation: list[float] = []
        self.used_mb: list[float] = []


@contextmanager
def sampled(seconds: float = 0.5) -> Iterator[Sampler]:
    """Utilisation (percent of time with a kernel running) and memory in use, by nvidia-smi."""
    sampler, stopping = Sampler(), threading.Event()
    query = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]

    def sample() -> None:
        while not stopping.wait(seconds):
            answer = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split(",")
            if len(answer) == 2:
                sampler.utilisation.append(float(answer[0]))
                sampler.used_mb.append(float(answer[1]))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield sampler
    finally:
        stopping.set()
        thread.join()


def seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def median(values: list[float]) -> float:
    return statistics.median(values)
