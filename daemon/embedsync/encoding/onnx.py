"""One ONNX Runtime session: which device it runs on, and a batch through it."""

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedsync.encoding.batching import padded
from embedsync.errors import ModelError
from embedsync.records import OutOfMemoryError, Tokens, Vector

if TYPE_CHECKING:
    import onnxruntime

CPU = "CPUExecutionProvider"
_PROVIDERS = {"cpu": CPU, "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
# ONNX Runtime has no class of its own for this error, so its words must do.
_OUT_OF_MEMORY = (
    "Failed to allocate memory",
    "is smaller than requested bytes",  # said when gpu_mem_limit is reached
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC",
    "out of memory",
    "bad_alloc",
)
_LENGTH_STEP = 16  # lengths on a GPU are rounded up to this: few shapes, so that the memory arena stays small


def runtime() -> Any:
    """The onnxruntime module, its telemetry off. Raises ModelError when neither build is installed."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: it is on by default in Linux wheels
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            "start", "the encoder", "onnxruntime is not installed", "Run: pip install 'embedsync[cpu]' (or [gpu])."
        ) from error
    return onnxruntime


class OnnxSession:
    """A graph loaded on a device. `device` is what was read back from the session, not what was asked for."""

    def __init__(
        self, path: Path, pad_id: int, device: str = "cpu", threads: int | None = None, memory_limit: int | None = None
    ) -> None:
        ort = runtime()
        kind, _, number = device.partition(":")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or cpu_limit()
        # Threads spin between the operators of a run, 3 to 20% of its time, and stop with it: an idle daemon burns nothing.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.log_severity_level = 4  # what it has to say comes as an exception too
        options.enable_mem_pattern = False  # patterns are kept for every shape; ours vary
        self._session: onnxruntime.InferenceSession = ort.InferenceSession(
            str(path), options, providers=_providers(kind, int(number or 0), memory_limit, path.parent),
            # On a CPU the fused operator takes five times as long as an addition and a LayerNormalization.
            disabled_optimizers=["SkipLayerNormFusion"] if kind == "cpu" else None,
        )  # fmt: skip
        self._inputs = {entry.name for entry in self._session.get_inputs()}
        self._pad_id = pad_id
        self.device = "cpu" if self._session.get_providers()[0] == CPU else device
        self._step = 1 if self.device == "cpu" else _LENGTH_STEP

    def run(self, batch: list[Tokens]) -> Vector:
        """Embeddings, float32 `[len(batch), dimension]`; not checked for being finite. Raises OutOfMemoryError."""
        feed = self.feed(batch)
        try:
            if self.device == "cpu":
                vectors: Vector = self._session.run(["sentence_embedding"], feed)[0]
                return vectors
            return self._run_bound(feed)
        except Exception as error:
            if any(words in str(error) for words in _OUT_OF_MEMORY):
                raise OutOfMemoryError(str(error)[:200]) from error
            raise

    def feed(self, batch: list[Tokens]) -> dict[str, NDArray[np.int64]]:
        """The graph's inputs by name, int64 `[len(batch), longest]`."""
        ids, mask = padded(batch, self._pad_id, self._step)
        given = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self._inputs:
            given["token_type_ids"] = np.zeros_like(ids)
        return given

    def _run_bound(self, feed: dict[str, NDArray[np.int64]]) -> Vector:
        """The same with inputs and output bound: one copy in, the device's kernels, one small copy out."""
        binding = self._session.io_binding()
        for name, values in feed.items():
            binding.bind_cpu_input(name, values)
        binding.bind_output("sentence_embedding", "cpu")
        self._session.run_with_iobinding(binding)
        vectors: Vector = binding.copy_outputs_to_cpu()[0]
        return vectors


def _providers(kind: str, number: int, memory_limit: int | None, cache: Path) -> list[Any]:
    """Execution providers in order of preference, with their options."""
    if kind == "cpu":
        return [CPU]
    cuda: dict[str, Any] = {
        "device_id": number,
        # Grow by what is asked for: the default doubles, and the arena never gives memory back.
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0",  # the fp32 graph is the one to fall back on: keep it exact
    }
    if memory_limit is not None:
        cuda["gpu_mem_limit"] = memory_limit
    providers: list[Any] = [(_PROVIDERS["cuda"], cuda), CPU]
    if kind == "tensorrt":
        engine = {
            "device_id": number,
            "trt_fp16_enable": True,
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": str(cache),
        }
        providers.insert(0, (_PROVIDERS["tensorrt"], engine))
    return providers


def choose_device(wanted: str) -> str:
    """The device to try: `auto` is CUDA where this build of onnxruntime has it. Raises ModelError."""
    ort = runtime()
    available = ort.get_available_providers()
    kind = wanted.partition(":")[0]
    if kind == "auto":
        kind = "cuda" if _PROVIDERS["cuda"] in available else "cpu"
        wanted = kind
    if _PROVIDERS[kind] not in available:
        raise ModelError(
            "use", f"device {wanted!r}", f"this onnxruntime has no {_PROVIDERS[kind]}",
            "Run: pip uninstall onnxruntime && pip install 'embedsync[gpu]'.",
        )  # fmt: skip
    if kind != "cpu" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls(directory="")  # CUDA and cuDNN from the nvidia packages, before the system's
    return wanted


def cpu_limit() -> int:
    """Cores this process may use: the scheduler's affinity, cut by the cgroup's quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores  # no cgroup v2
    return cores if quota == "max" else min(cores, max(1, round(int(quota) / int(period))))


def gpu_memory(device: str) -> tuple[float, float] | None:
    """Free and total memory of a CUDA device in GB (10⁹ bytes), None where nvidia-smi cannot tell."""
    number = device.partition(":")[2] or "0"
    query = ["nvidia-smi", f"--id={number}", "--query-gpu=memory.free,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
        free, total = (float(part) * 2**20 / 1e9 for part in answer.split(","))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return free, total
