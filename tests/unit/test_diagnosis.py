"""Why a device cannot be used: from a real message to one sentence and one remedy."""

import pytest

from freshvec.encoding.diagnosis import explain

# Messages of onnxruntime-gpu 1.31.1 (CUDA 13), of glibc's linker loading its libraries, and of CUDA's own
# runtime, each without the libraries named here. The two drivers that are too old and the one without a GPU
# were stand-ins for libcuda.so.1 under the real CUDA runtime. The CUDA provider of that version does not link
# cuDNN, only TensorRT's does; the message of a kernel without cuDNN was read in the library, because seeing
# it needs a GPU.
CALL = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:154 std::conditional_t<THRW, void, "
    "onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, const char*, SUCCTYPE, "
    "const char*, const char*, int) [with ERRTYPE = cudaError; bool THRW = true; SUCCTYPE = cudaError; "
    "std::conditional_t<THRW, void, common::Status> = void] {} ; GPU=-1 ; hostname=vm ; "
    "file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider.cc ; line=355 ; "
    "expr=cudaSetDevice(info_.device_id);"
)
PROVIDER = "/site-packages/onnxruntime/capi/libonnxruntime_providers_cuda.so"
MESSAGES = {
    "no CUDA at all": (
        "libcublasLt.so.13: cannot open shared object file: No such file or directory",
        "CUDA 13 is missing: libcublasLt.so.13 is not found",
        "freshvec[gpu]",
    ),
    "no curand": (
        "libcurand.so.10: cannot open shared object file: No such file or directory",
        "CUDA 13 is missing: libcurand.so.10 is not found",
        "freshvec[gpu]",
    ),
    "no cuDNN": (
        "libcudnn.so.9: cannot open shared object file: No such file or directory",
        "cuDNN 9 is missing",
        "brings CUDA 13 and cuDNN",
    ),
    "no cuDNN, noticed by a kernel": (
        "cuDNN is not available. Install cuDNN, update the system library search path, or set enable_cudnn=0 "
        "to force native CUDA paths where available.",
        "cuDNN 9 is missing",
        "brings CUDA 13 and cuDNN",
    ),
    "no driver": (
        "libcuda.so.1: cannot open shared object file: No such file or directory",
        "there is no NVIDIA driver: libcuda.so.1 is missing",
        "--gpus all",
    ),
    "a driver of CUDA 11": (
        f"{PROVIDER}: undefined symbol: cuTensorMapEncodeTiled",
        "the NVIDIA driver is too old: it has no cuTensorMapEncodeTiled",
        "Install a driver for CUDA 13 or newer",
    ),
    "a driver of CUDA 12": (
        CALL.format("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version"),
        "the NVIDIA driver is too old for CUDA 13",
        "Install a driver for CUDA 13 or newer",
    ),
    "no GPU": (
        CALL.format("CUDA failure 100: no CUDA-capable device is detected"),
        "there is no GPU that CUDA can use",
        "CUDA_VISIBLE_DEVICES",
    ),
    "no second GPU": (
        CALL.format("CUDA failure 101: invalid device ordinal"),
        "there is no GPU of that number",
        "nvidia-smi -L",
    ),
    "a GPU that others fill": (
        CALL.format("CUDA failure 2: out of memory"),
        "its memory is taken",
        "nvidia-smi shows by whom",
    ),
    "no TensorRT": (
        "libnvinfer.so.10: cannot open shared object file: No such file or directory",
        "TensorRT 10 is missing",
        'device = "cuda"',
    ),
    "no TensorRT, as the session reports it": (
        "/onnxruntime_src/onnxruntime/python/onnxruntime_pybind_state.cc:729 void onnxruntime::python::"
        "RegisterTensorRTPluginsAsCustomOps(PySessionOptions&, const onnxruntime::ProviderOptions&) Please "
        "install TensorRT libraries as mentioned in the GPU requirements page, make sure they're in the PATH "
        "or LD_LIBRARY_PATH, and that your GPU is supported.\n",
        "TensorRT 10 is missing",
        'device = "cuda"',
    ),
    "the CPU's build over the GPU's": (
        f"{PROVIDER}: cannot open shared object file: No such file or directory",
        "the installed onnxruntime is the one for the CPU",
        "pip uninstall onnxruntime onnxruntime-gpu",
    ),
}


@pytest.mark.parametrize(("message", "problem", "remedy"), MESSAGES.values(), ids=MESSAGES.keys())
def test_a_real_message_is_understood(message: str, problem: str, remedy: str) -> None:
    found = explain(message, "13")
    assert found.problem.startswith(problem)
    assert remedy in found.remedy
    assert "\n" not in found.problem + found.remedy
    assert "{" not in found.problem + found.remedy


def test_a_cuda_of_another_major_version_is_named() -> None:
    found = explain(
        "libcublasLt.so.13: cannot open shared object file: No such file or directory", "13", "12"
    )
    assert (
        found.problem
        == "CUDA 12 is installed, and this onnxruntime needs CUDA 13: libcublasLt.so.13 is not found"
    )
    assert "freshvec[gpu]" in found.remedy


def test_where_the_version_is_not_known_none_is_made_up() -> None:
    found = explain("libcublas.so.12: cannot open shared object file: No such file or directory")
    assert found.problem == "CUDA is missing: libcublas.so.12 is not found"


def test_what_is_not_known_is_quoted_without_the_source_lines_around_it() -> None:
    found = explain(CALL.format("CUDA failure 999: unknown error"), "13")
    assert found.problem == "onnxruntime could not start it: CUDA failure 999: unknown error"
    assert explain("some\n  other   trouble").problem == "onnxruntime could not start it: some other trouble"
