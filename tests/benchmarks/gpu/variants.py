"""Ways to run one and the same model on a GPU: environment, graph, shapes, batches under way."""

import os
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np

from freshvec.encoding.batching import plan_batches
from freshvec.encoding.session import OnnxSession
from freshvec.records import Tokens, Vector
from tests.benchmarks.gpu.setting import Setting

AS_IT_COMES: dict[str, str] = {}
NO_CUDNN = {"ORT_ENABLE_CUDNN_FLASH_ATTENTION": "0"}
EFFICIENT = {**NO_CUDNN, "ORT_DISABLE_FLASH_ATTENTION": "1", "ORT_DISABLE_TRT_FLASH_ATTENTION": "1"}
FLASH_PACKED = {**NO_CUDNN, "ORT_MIN_SEQ_LEN_FLASH_ATTENTION_PACKED_QKV": "0"}
PAGE = 8192  # rows a backfill reads, and sorts by length, together
SIZE = 65536  # padded tokens a batch
_ROWS = (1, 7 / 8, 3 / 4, 5 / 8, 1 / 2, 3 / 8, 1 / 4, 1 / 8)  # of a full batch: the grid of row counts


@dataclass(frozen=True)
class Planned:
    """A batch as it goes to the device: texts that count, and after them some again to fill the shape."""

    tokens: list[Tokens]
    texts: int

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.tokens), -(-max(map(len, self.tokens)) // 16) * 16


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Variables that onnxruntime reads while a session is made and first used."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def session(setting: Setting, env: dict[str, str], graph: Path | None = None) -> OnnxSession:
    """A fresh session that has encoded one text, with nothing else warm."""
    with environment(env):
        made = OnnxSession(graph or setting.graph, setting.pad_id, setting.device)
        made.run(setting.tokens[:1])
    return made


def kernels(setting: Setting, env: dict[str, str], graph: Path | None = None) -> list[str]:
    """Which attention kernel onnxruntime says it takes, for a batch of middle and one of full length."""
    with TemporaryFile() as kept, environment({**env, "ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO": "1"}):
        before = os.dup(1)
        os.dup2(kept.fileno(), 1)
        try:
            made = OnnxSession(graph or setting.graph, setting.pad_id, setting.device)
            for length in (64, 256):
                made.run([Tokens(np.full(length, 2000, dtype=np.int64))] * 32)
        finally:
            os.dup2(before, 1)
            os.close(before)
        kept.seek(0)
        said = kept.read().decode(errors="replace")
    return sorted(set(re.findall(r"SdpaKernel=(\w+)", said))) or said.splitlines()[:4]


def planned(tokens: Sequence[Tokens], size: int = SIZE) -> list[Planned]:
    """Batches as a backfill plans them, page by page."""
    made = []
    for start in range(0, len(tokens), PAGE):
        page = tokens[start : start + PAGE]
        for batch in plan_batches([len(text) for text in page], lambda: size):
            made.append(Planned([page[i] for i in batch.indices], len(batch.indices)))
    return made


def planned_on_grid(tokens: Sequence[Tokens], size: int = SIZE) -> list[Planned]:
    """The same with lengths rounded up to 16 before planning and rows to eighths of a full batch."""
    made = []
    for start in range(0, len(tokens), PAGE):
        page = tokens[start : start + PAGE]
        widths = [-(-len(text) // 16) * 16 for text in page]
        for batch in plan_batches(widths, lambda: size):
            picked = [page[i] for i in batch.indices]
            full = max(1, size // widths[batch.indices[0]])
            rows = min(max(1, round(full * part)) for part in _ROWS if round(full * part) >= len(picked))
            made.append(Planned(picked + [picked[-1]] * (rows - len(picked)), len(picked)))
    return made


@cache
def lane_threads(lanes: int) -> ThreadPoolExecutor:
    """Threads that stay: cuDNN's plans belong to the thread that built them."""
    return ThreadPoolExecutor(lanes)


def encode(made: OnnxSession, batches: list[Planned], lanes: int = 1) -> float:
    """Seconds for all batches, with so many under way at once."""
    began = time.perf_counter()
    if lanes == 1:
        for batch in batches:
            made.run(batch.tokens)
    else:
        list(lane_threads(lanes).map(lambda batch: made.run(batch.tokens), batches))
    return time.perf_counter() - began


def vectors(made: OnnxSession, batches: list[Planned]) -> Vector:
    return np.concatenate([made.run(batch.tokens)[: batch.texts] for batch in batches])


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
