"""Choosing a device, falling back, binding inputs, knowing out of memory, on the real runtime and model."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loguru import logger

from freshvec.encoding import providers
from freshvec.encoding.encoder import OnnxEncoder
from freshvec.encoding.session import OnnxSession
from freshvec.errors import DeviceError, ModelError
from freshvec.models.artefact import Precision
from freshvec.records import OutOfMemoryError, Tokens
from tests.support import MODEL, models_in


def load(models_dir: Path, device: str) -> OnnxEncoder:
    return models_in(models_dir, device=device).encoder(MODEL)


@pytest.fixture(scope="module")
def session(models_dir: Path) -> OnnxSession:
    return OnnxSession(models_dir / MODEL / "fp32.onnx", 0)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "tensorrt"])
def test_a_gpu_that_is_asked_for_and_not_there_is_an_error_with_a_remedy(
    models_dir: Path, device: str
) -> None:
    with pytest.raises(ModelError) as raised:
        load(models_dir, device)
    assert str(raised.value).startswith(
        f"cannot use device '{device}': the installed onnxruntime is the one for the CPU"
    )
    assert "pip install 'freshvec[gpu]'" in raised.value.remedy


def test_auto_on_a_build_without_cuda_is_the_cpu_without_a_word(
    models_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert load(models_dir, "auto").device == "cpu"
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def claims_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that says it has CUDA, as the GPU's build does on every machine, and cannot start it."""
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )


@pytest.mark.usefixtures("claims_cuda")
def test_auto_falls_back_with_one_warning_that_says_why(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = "libcuda.so.1: cannot open shared object file: No such file or directory"
    monkeypatch.setattr(providers, "load_error", lambda kind: message)
    warnings: list[str] = []
    sink = logger.add(lambda message: warnings.append(message.record["message"]), level="WARNING")
    try:
        # The warning is that of onnxruntime's build for the CPU.
        with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
            encoder = load(models_dir, "auto")
    finally:
        logger.remove(sink)
    assert (encoder.device, encoder.precision) == ("cpu", "fp32")
    (warning,) = warnings
    assert warning.startswith("encoding on the CPU: cannot use device 'cuda': there is no NVIDIA driver")


@pytest.mark.usefixtures("claims_cuda")
def test_a_demanded_device_that_does_not_start_is_an_error(models_dir: Path) -> None:
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(DeviceError, match="only one may be installed"),
    ):
        load(models_dir, "cuda")


@pytest.mark.usefixtures("claims_cuda")
def test_what_the_session_raises_about_a_device_is_explained(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any, **named: Any) -> None:
        assert named["enable_fallback"] == 0, "else onnxruntime goes on with the CPU by itself"
        raise RuntimeError(
            "cuda_call.cc:154 CUDA failure 35: "
            "CUDA driver version is insufficient for CUDA runtime version ; GPU=-1"
        )

    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    monkeypatch.setattr(providers, "load_error", lambda kind: "")
    with pytest.raises(DeviceError, match="the NVIDIA driver is too old for CUDA"):
        load(models_dir, "cuda")


def test_an_empty_onnxruntime_folder_is_not_taken_for_an_installed_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(onnxruntime, "InferenceSession")
    with pytest.raises(ModelError, match="only a part of onnxruntime is installed"):
        providers.runtime()


def test_the_device_is_read_back_from_the_session() -> None:
    class Session:
        def __init__(self, *kinds: str) -> None:
            self.get_providers = lambda: [f"{kind}ExecutionProvider" for kind in kinds]

    assert providers.device_of(Session("CPU"), "cuda:1") == "cpu"
    assert providers.device_of(Session("CUDA", "CPU"), "cuda:1") == "cuda:1"
    assert providers.device_of(Session("CUDA", "CPU"), "tensorrt") == "cuda"
    assert providers.device_of(Session("Tensorrt", "CUDA", "CPU"), "tensorrt") == "tensorrt"


def test_the_providers_are_tried_in_order_and_the_cpu_is_always_last(tmp_path: Path) -> None:
    def names(device: str) -> list[str]:
        return [
            name.removesuffix("ExecutionProvider")
            for name, _ in providers.provider_options(device, None, tmp_path)
        ]

    assert names("cpu") == ["CPU"]
    assert names("cuda:1") == ["CUDA", "CPU"]
    assert names("tensorrt") == ["Tensorrt", "CUDA", "CPU"]
    ((_, cuda), _) = providers.provider_options("cuda:1", 10**9, tmp_path)
    assert (cuda["device_id"], cuda["gpu_mem_limit"]) == (1, 10**9)


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_tensorrt_computes_in_the_precision_of_the_graph(tmp_path: Path, precision: Precision) -> None:
    ((_, engine), *_) = providers.provider_options("tensorrt", None, tmp_path, precision)
    assert engine["trt_fp16_enable"] == (precision == "fp16")


def test_a_session_is_told_its_precision(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def options(device: str, limit: int | None, cache: Path, precision: Precision) -> list[Any]:
        told.append(precision)
        return ["CPUExecutionProvider"]

    monkeypatch.setattr(providers, "provider_options", options)
    encoder = load(models_dir, "cpu")
    encoder.precision = "int8"
    encoder.rebuild()
    assert told == ["fp32", "int8"]


def test_telemetry_writes_nothing(models_dir: Path, tmp_path: Path) -> None:
    """In a process of its own, as a daemon is: CI=true would switch it off as well."""
    code = (
        "from freshvec.config import Daemon, Settings\n"
        "from freshvec.encoding.loading import Models\n"
        f"models = Models(Settings(daemon=Daemon(models_dir={str(models_dir)!r})))\n"
        f"models.encoder({MODEL!r}).encode_query('x')\n"
    )
    environ = {key: value for key, value in os.environ.items() if key not in ("CI", "ORT_DISABLE_TELEMETRY")}
    subprocess.run(
        [sys.executable, "-c", code],
        env={**environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")},
        check=True,
        timeout=60,
    )
    assert list(tmp_path.rglob("*")) == []


SHAPES = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 40)), min_size=1, max_size=6)


@settings(deadline=None, max_examples=25)
@given(SHAPES)
def test_bound_inputs_give_the_very_same_vectors(
    session: OnnxSession, encoder: OnnxEncoder, shapes: list[tuple[int, int]]
) -> None:
    for rows, length in shapes:
        batch = [Tokens(np.arange(1000, 1000 + max(1, length - row), dtype=np.int64)) for row in range(rows)]
        bound = session.run_bound(session.feed(batch))
        assert bound.shape == (rows, encoder.dimension)
        assert bound.tobytes() == session.run(batch).tobytes()


def test_bound_batches_of_several_threads_do_not_mix(session: OnnxSession) -> None:
    batches = [[Tokens(np.full(20, 1000 + number, dtype=np.int64))] for number in range(40)]
    wanted = [session.run(batch).tobytes() for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            vectors = pool.map(lambda batch: session.run_bound(session.feed(batch)), batches)
            assert [vector.tobytes() for vector in vectors] == wanted


def test_buffers_are_few_and_used_again(models_dir: Path) -> None:
    session = OnnxSession(models_dir / MODEL / "fp32.onnx", 0)
    for length in range(1, 200, 5):
        session.run_bound(session.feed([Tokens(np.full(length, 1000, dtype=np.int64))] * 3))
    assert 0 < sum(map(len, session.buffers)) <= 3 * 10  # three inputs, powers of two up to 1,024


def test_the_arena_is_shrunk_after_a_failure_and_the_vectors_stay_the_same(session: OnnxSession) -> None:
    batch = [Tokens(np.arange(1000, 1100, dtype=np.int64))] * 4
    before = session.run(batch)
    with pytest.raises(OutOfMemoryError):
        run_failing(session, MemoryError())
    assert session.shrinks_next
    assert session.run(batch).tobytes() == before.tobytes()
    assert not session.shrinks_next


NODE = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running MatMul node. "
    "Name:'MatMul_1' Status Message: "
)
ARENA = NODE + (
    "/onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 "
    "void* onnxruntime::BFCArena::AllocateRawInternal("
    "size_t, bool, onnxruntime::Stream*, bool, onnxruntime::WaitNotificationFn) "
)


@pytest.mark.parametrize(
    "message",
    [
        ARENA + "Failed to allocate memory for requested buffer of size 939524096",
        ARENA + "Available memory of 19968 is smaller than requested bytes of 1572864",
        NODE
        + "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; hostname=egg ; "
        + "expr=cublasCreate(&cublas_handle_);",
        NODE + "CUDNN failure 2: CUDNN_STATUS_ALLOC_FAILED ; GPU=0",
        NODE + "CUDNN failure 4004: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ; GPU=0",
        NODE + "CUDA failure 2: out of memory ; GPU=0 ; hostname=egg ; expr=cudaMalloc((void**)&p, size);",
        NODE + "std::bad_alloc",
    ],
)
def test_out_of_memory_is_known_by_its_message(session: OnnxSession, message: str) -> None:
    with pytest.raises(OutOfMemoryError):
        run_failing(session, RuntimeError(message))
    assert session.shrinks_next


def test_memory_that_python_cannot_get_is_out_of_memory_too(session: OnnxSession) -> None:
    with pytest.raises(OutOfMemoryError):
        run_failing(session, MemoryError())


@pytest.mark.parametrize(
    "message",
    [
        NODE + "DFA out of memory: prog size 1024 mem 4096",  # of a regular expression
        NODE + "CUDA failure 700: an illegal memory access was encountered ; GPU=0",
        NODE + "CUDA failure 21: out of memory pools",
        NODE + "CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED ; GPU=0",
        NODE + "CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED ; GPU=0",
        NODE + "not enough space: expected 318080, got 314240",
        NODE + "Failed to allocate memory pattern for the requested shape",
        "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: input_ids",
    ],
)
def test_another_error_that_looks_alike_is_not(session: OnnxSession, message: str) -> None:
    with pytest.raises(RuntimeError, match="ONNXRuntimeError"):
        run_failing(session, RuntimeError(message))
    assert not session.shrinks_next


def run_failing(session: OnnxSession, error: Exception) -> None:
    """Encode a batch while onnxruntime raises the error."""

    def fail(*given: Any) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime.InferenceSession, "run", fail)
        session.run([Tokens(np.array([101, 102], dtype=np.int64))])
