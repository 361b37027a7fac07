"""The machine, the texts and the model of a GPU run."""

import argparse
import ast
import json
import os
import platform
import shutil
import statistics
import subprocess
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache, cached_property
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from freshvec.encoding.encoder import OnnxEncoder
from freshvec.encoding.tokenizer import Tokenizer
from freshvec.models import catalogue
from freshvec.models.artefact import Artefact
from freshvec.models.catalogue import ModelCard
from freshvec.records import Tokens
from freshvec.stdlib_texts import _documented


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    packages = {}
    for name in ("onnxruntime-gpu", "onnxruntime", "torch", "sentence-transformers", "tokenizers", "psycopg"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "-"
    try:
        gpu = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        gpu = "none"
    return {
        "date": time.strftime("%Y-%m-%d"),
        "gpu": gpu,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "packages": packages,
    }


def documented(path: Path) -> list[str]:
    """The docstrings of one file."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError, RecursionError):
        return []
    return [text.replace("\0", "") for _, text in _documented(tree, "")]


class Setting:
    """What the stages share."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.models: Path = arguments.models
        self.card: ModelCard = catalogue.find(
            arguments.model, [arguments.catalogue] if arguments.catalogue else []
        )
        self.rows: int = arguments.rows
        self.count: int = arguments.texts
        self.device: str = arguments.device
        self._source: Path | None = arguments.source
        self.quick: bool = arguments.quick
        self.base: Path | None = arguments.base
        self.base_flops = 2 * 12 * 12 * 768 * 768  # a token: twelve layers of twelve matrices' worth
        self._kept: Path | None = arguments.kept_texts

    @property
    def source(self) -> Path:
        """The model's own files."""
        return self._source or Path(import_module(self.card.package or "").get_model_path())

    @property
    def artefact(self) -> Artefact:
        return Artefact.open(self.models, self.card)

    @cached_property
    def encoder(self) -> OnnxEncoder:
        return OnnxEncoder(self.artefact, self.device)

    @property
    def graph(self) -> Path:
        """The graph this device runs."""
        return self.artefact.path("fp32" if self.device == "cpu" else "fp16")

    @property
    def packed(self) -> Path:
        """The graph without padding between its layers."""
        if "fp16" not in self.artefact.graphs or self.device == "cpu":
            return self.graph
        return self.artefact.packed_path("fp16") or self.graph

    @property
    def pad_id(self) -> int:
        return self.artefact.pad_id

    def only_fp32(self) -> OnnxEncoder:
        """The same model with its fp32 graph on the GPU."""
        artefact = self.artefact
        return OnnxEncoder(
            artefact.model_copy(update={"graphs": {"fp32": artefact.graphs["fp32"]}}), self.device
        )

    @cached_property
    def texts(self) -> list[str]:
        """Docstrings of this machine's Python packages: real prose about code, of all lengths, none twice."""
        kept = self._kept and self._kept / "texts.json"
        if kept and kept.exists():
            return list(json.loads(kept.read_text()))
        folders = {sysconfig.get_paths()[name] for name in ("stdlib", "purelib")}
        paths = sorted(path for folder in folders for path in Path(folder).rglob("*.py"))
        found: dict[str, None] = {}
        with ProcessPoolExecutor() as pool:
            for some in pool.map(documented, paths, chunksize=100):
                found.update(dict.fromkeys(some))
        if kept:  # each group of stages is a process of its own
            kept.write_text(json.dumps(list(found)))
        return list(found)

    def many(self, count: int) -> list[str]:
        """`count` texts; where there are too few, again with a number, so that no two are equal."""
        texts = self.texts
        return [
            texts[i % len(texts)] + (f" ({i // len(texts)})" if i >= len(texts) else "") for i in range(count)
        ]

    @cached_property
    def tokens(self) -> list[Tokens]:
        """So many texts, tokenised."""
        kept = self._kept and self._kept / f"tokens-{self.count}.npz"
        if kept and kept.exists():
            found = np.load(kept)
            return [Tokens(ids) for ids in np.split(found["ids"], found["ends"][:-1])]
        given = self.artefact.tokenizer_path, self.card.max_tokens, self.card.document_prefix
        tokens = Tokenizer(*given).encode(self.many(self.count))
        if kept:
            ids, lengths = np.concatenate([text.ids for text in tokens]), list(map(len, tokens))
            np.savez(kept, ids=ids, ends=np.cumsum(lengths))
        return tokens


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
        while shutil.which("nvidia-smi") and not stopping.wait(seconds):
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


@cache
def matrix_rate() -> float:
    """The device's fp16 matrix rate on a large product of random numbers, FLOP/s; 1 without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return 1.0
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.float16) for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(20):
        a @ b
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.perf_counter() - began)


def rates(
    setting: Setting, tokens: int, texts: int, seconds: float, flops: int | None = None
) -> dict[str, float]:
    """Real tokens and texts a second, and the share of the matrix rate, attention's own products left out."""
    share = tokens / seconds * (flops or setting.artefact.flops_per_token) / matrix_rate()
    return {"tokens/s": tokens / seconds, "texts/s": texts / seconds, "share of the matrix rate": share}
