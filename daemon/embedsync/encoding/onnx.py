"""One ONNX Runtime session: which device it runs on, and a batch through it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from loguru import logger

from embedsync.encoding.batching import padded
from embedsync.errors import EncodingError, ModelError
from embedsync.records import Tokens, Vector

if TYPE_CHECKING:
    import onnxruntime

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


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

    def __init__(self, path: Path, pad_id: int, device: str = "cpu", threads: int | None = None) -> None:
        ort = runtime()
        kind, _, number = device.partition(":")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or cpu_limit()
        # Threads that spin while they wait would burn a core on an idle daemon.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        providers: list[Any] = [_PROVIDERS["cpu"]]
        if kind == "cuda":
            providers.insert(0, (_PROVIDERS["cuda"], {"device_id": int(number or 0)}))
        self._session: onnxruntime.InferenceSession = ort.InferenceSession(str(path), options, providers=providers)
        self._inputs = {entry.name for entry in self._session.get_inputs()}
        self._pad_id = pad_id
        self.device = "cpu" if self._session.get_providers()[0] == _PROVIDERS["cpu"] else device

    def run(self, batch: list[Tokens]) -> Vector:
        """Embeddings, float32 `[len(batch), dimension]`. Raises EncodingError when one is not finite."""
        ids, mask = padded(batch, self._pad_id)
        feed = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self._inputs:
            feed["token_type_ids"] = np.zeros_like(ids)
        vectors: Vector = self._session.run(["sentence_embedding"], feed)[0]
        if not np.isfinite(vectors).all():
            raise EncodingError("encode", f"{len(batch)} texts", "the model gave values that are not finite")
        return vectors


def choose_device(wanted: str) -> str:
    """The device to try: `auto` is CUDA where this build of onnxruntime has it. Raises ModelError."""
    has_cuda = _PROVIDERS["cuda"] in runtime().get_available_providers()
    if wanted.startswith("cuda") and not has_cuda:
        raise ModelError(
            "use", f"device {wanted!r}", "this onnxruntime is built without CUDA",
            "Run: pip uninstall onnxruntime && pip install 'embedsync[gpu]'.",
        )  # fmt: skip
    if wanted == "auto":
        return "cuda" if has_cuda else "cpu"
    return wanted


def cpu_limit() -> int:
    """Cores this process may use: the scheduler's affinity, cut by the cgroup's quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        logger.trace("no cgroup v2 quota to read")
    return cores
