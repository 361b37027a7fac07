"""The devices onnxruntime offers: which to try, with which options, and which one a session runs on."""

import contextlib
import ctypes
import io
import os
from importlib import import_module
from pathlib import Path
from typing import Any

from freshvec.encoding.diagnosis import CPU_ONLY, explain
from freshvec.errors import DeviceError, ModelError
from freshvec.models.artefact import Precision

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


def runtime() -> Any:
    """The onnxruntime module, its telemetry off. Raises ModelError when no usable build is installed."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: it is on by default in Linux wheels
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # cuda:1 is then the GPU that nvidia-smi calls 1
    # Before a session: FlashAttention for packed texts of any length, not from 513 tokens on.
    os.environ.setdefault("ORT_MIN_SEQ_LEN_FLASH_ATTENTION_PACKED_QKV", "0")
    remedy = "Run: pip install 'freshvec[cpu]' (or [gpu])."
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            "start", "the encoder", f"onnxruntime cannot be imported: {error}", remedy
        ) from error
    if not hasattr(onnxruntime, "InferenceSession"):  # an empty folder is importable too
        raise ModelError(
            "start",
            "the encoder",
            "only a part of onnxruntime is installed, as after one of two builds was uninstalled",
            "Run: pip uninstall onnxruntime onnxruntime-gpu, then: pip install 'freshvec[gpu]' (or [cpu]).",
        )
    # Its log is off: what matters is read back from the session and logged in words of our own.
    onnxruntime.set_default_logger_severity(4)
    return onnxruntime


def choose(wanted: str) -> str:
    """The device to try: `auto` is CUDA where this build of onnxruntime has it.

    Raises DeviceError for a device that this build does not have.
    """
    available = runtime().get_available_providers()
    kind = _kind(wanted)
    if kind == "auto":
        return "cuda" if _PROVIDERS["cuda"] in available else "cpu"
    if _PROVIDERS[kind] not in available:
        raise DeviceError("use", f"device {wanted!r}", CPU_ONLY.problem, CPU_ONLY.remedy)
    return wanted


def provider_options(
    device: str, memory_limit: int | None, cache: Path, precision: Precision = "fp32"
) -> list[tuple[str, dict[str, Any]]]:
    """Execution providers with their options, in order of preference.

    `memory_limit` is in bytes; `cache` is a folder for TensorRT's engines; `precision` is the graph's. The
    other options are right by default: copies go in the compute stream, and the options named conv are for
    convolutions, of which an encoder has none. CUDA graphs and NHWC are not for shapes that change with every
    batch.
    """
    cpu: tuple[str, dict[str, Any]] = (_PROVIDERS["cpu"], {})
    kind, number = _kind(device), _number(device)
    if kind == "cpu":
        return [cpu]
    cuda: dict[str, Any] = {
        "device_id": number,
        # Grow by what is asked for: the default doubles, and the arena never gives memory back by itself.
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0",  # the fp32 graph is the one to fall back on: keep it exact
    }
    if memory_limit is not None:
        cuda["gpu_mem_limit"] = memory_limit
    engine: dict[str, Any] = {
        "device_id": number,
        "trt_fp16_enable": precision == "fp16",  # it would run an fp32 graph in fp16, too
        # Building an engine takes minutes; it is kept for this model, GPU and version of TensorRT.
        "trt_engine_cache_enable": True,
        "trt_timing_cache_enable": True,
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_path": str(cache),
    }
    first = [(_PROVIDERS["tensorrt"], engine)] if kind == "tensorrt" else []
    return [*first, (_PROVIDERS["cuda"], cuda), cpu]


def disabled_optimizers(device: str) -> list[str]:
    """Fusions that cost more than they save.

    On a CPU the fused kernel takes five times as long as LayerNormalization and Add; a GPU's is fast. A GPU
    writes the bias of a product out for every token before it multiplies, which takes longer than to add it.
    """
    return ["SkipLayerNormFusion"] if _kind(device) == "cpu" else ["MatMulAddFusion"]


def device_of(session: Any, tried: str) -> str:
    """The device a session really runs on, read back from it: onnxruntime falls back to the CPU silently."""
    first = session.get_providers()[0]
    kind = next(kind for kind, provider in _PROVIDERS.items() if provider == first)
    if kind == _kind(tried):
        return tried
    return f"{kind}:{_number(tried)}" if kind != "cpu" and _number(tried) else kind


def memory_place(device: str) -> tuple[str, int]:
    """Where a device's tensors lie: onnxruntime's name of its memory, and the number."""
    return ("cpu", 0) if _kind(device) == "cpu" else ("cuda", _number(device))


def preload(device: str) -> None:
    """Load CUDA and cuDNN from the nvidia packages, before the system's. `refusal` names what is missing."""
    ort, kind = runtime(), _kind(device)
    if kind != "cpu" and hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # it prints
            ort.preload_dlls(directory="")
    if kind == "tensorrt":
        # Importing the package loads its libraries, which lie where no linker looks.
        with contextlib.suppress(ImportError):
            import_module("tensorrt")


def refusal(device: str, error: Exception | None = None) -> DeviceError:
    """Why no session runs on the device; `error` is what the session raised, if anything.

    When a library is missing, a session raises nothing, or an error that does not name the library. So the
    provider's own library is loaded once more, and the dynamic linker names what it lacks. The session's own
    error tells what fails beyond that.
    """
    message = load_error(_kind(device)) or str(
        error or f"onnxruntime left {_PROVIDERS[_kind(device)]} out without a word"
    )
    cuda = str(getattr(runtime(), "cuda_version", None) or "").partition(".")[0]  # that it was built for
    reason = explain(message, cuda, _other_cuda(cuda))
    return DeviceError("use", f"device {device!r}", reason.problem, reason.remedy)


def load_error(kind: str) -> str:
    """The dynamic linker's message about a provider's library (`kind`: cuda, tensorrt); "" when it loads."""
    try:
        ctypes.CDLL(str(Path(runtime().__file__).parent / "capi" / f"libonnxruntime_providers_{kind}.so"))
    except OSError as error:
        return str(error)
    return ""


def _other_cuda(wanted: str) -> str:
    """The major version of a CUDA that can be loaded where `wanted` cannot; "" where there is none."""
    for major in ("14", "13", "12", "11"):
        with contextlib.suppress(OSError):
            if wanted and major != wanted:
                ctypes.CDLL(f"libcudart.so.{major}")
                return major
    return ""


def _kind(device: str) -> str:
    return device.partition(":")[0]


def _number(device: str) -> int:
    return int(device.partition(":")[2] or 0)
