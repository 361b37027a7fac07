"""One OpenVINO request: a batch through the fp32 graph, computed in bf16 where a CPU has AMX.

Intel's AMX multiplies matrices in bf16 many times as fast as in fp32, and ONNX Runtime does not use it.
"""

import threading
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from freshvec.encoding.batching import padded
from freshvec.encoding.diagnosis import Diagnosis
from freshvec.encoding.machine import cpu_limit, multiplies_bf16
from freshvec.encoding.session import OUTPUT, out_of_memory
from freshvec.records import OutOfMemoryError, Tokens, Vector

# Kernels are compiled for every shape of a batch and kept. Lengths are rounded up, so that there are few, and
# so many are kept: 401 MiB over 3,000 texts instead of 530, and a third quicker.
_LENGTH_STEP = 16
_KEPT_KERNELS = 16


def is_installed() -> bool:
    """Whether the package is there; it is not imported."""
    return find_spec("openvino") is not None


def refusal() -> Diagnosis | None:
    """Why OpenVINO cannot compute in bf16 here; None where it can."""
    if not is_installed():
        return Diagnosis("OpenVINO is not installed", "Run: pip install 'freshvec[openvino]'.")
    if not _has_bf16():
        return Diagnosis(
            "this processor does not compute in bf16",
            "It takes one with AMX (Intel's Xeon of the fourth generation and later).",
        )
    return None


@cache
def _has_bf16() -> bool:
    # Without AMX, bf16 is no quicker than fp32, or is silently fp32.
    return multiplies_bf16() and "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _core() -> Any:
    import openvino  # it comes with freshvec[openvino]

    return openvino.Core()


class OpenVinoSession:
    """A graph loaded by OpenVINO on the CPU, computing in bf16. `run` may be called by several threads.

    `normalize`: whether vectors have the length 1, which is seen to in fp32. `threads`: None for every core
    the process may use. Raises what openvino raises for a graph that it refuses.
    """

    device = "cpu"

    def __init__(self, path: Path, pad_id: int, normalize: bool, threads: int | None = None) -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16",
            "PERFORMANCE_HINT": "LATENCY",  # one batch at a time, on all threads
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads or cpu_limit(),
            "ENABLE_CPU_PINNING": False,  # the cores are Postgres's, too
            "CPU_RUNTIME_CACHE_CAPACITY": _KEPT_KERNELS,
        }
        model = _core().compile_model(str(path), "CPU", settings)
        self._inputs = [entry.any_name for entry in model.inputs]
        self._request = model.create_infer_request()
        self._pad_id = pad_id
        self._normalize = normalize
        self._turn = threading.Lock()  # a request holds the tensors of one batch

    def run(self, batch: list[Tokens]) -> Vector:
        """Embeddings, float32 `[len(batch), dimension]`, perhaps not finite. Raises OutOfMemoryError."""
        ids, mask = padded(batch, self._pad_id, _LENGTH_STEP)
        known = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        given = {name: known[name] for name in self._inputs}
        try:
            with self._turn:
                vectors: Vector = np.array(self._request.infer(given, share_inputs=True)[OUTPUT], np.float32)
        except Exception as error:
            if out_of_memory(error):
                raise OutOfMemoryError(str(error)[-200:]) from error
            raise
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if self._normalize else vectors
