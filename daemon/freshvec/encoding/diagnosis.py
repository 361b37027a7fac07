"""From a message of onnxruntime, the dynamic linker or CUDA to what is missing and what to do about it."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Diagnosis:
    """One sentence without its full stop, and one remedy."""

    problem: str
    remedy: str


CPU_ONLY = Diagnosis(
    "the installed onnxruntime is the one for the CPU; "
    "the two builds overwrite each other, so only one may be installed",
    "Run: pip uninstall onnxruntime onnxruntime-gpu, then: pip install 'freshvec[gpu]'.",
)
_LIBRARIES = (
    "Run: pip install 'freshvec[gpu]', which brings CUDA{cuda} and cuDNN, "
    "and compare with what nvidia-smi says."
)
_DRIVER = (
    "Install a driver for CUDA{cuda} or newer; nvidia-smi names the newest CUDA that the driver can serve."
)

# Pattern, problem, remedy; the first pattern that matches counts. {0} is what the pattern captured, {cuda}
# the major version of CUDA that onnxruntime needs, {instead} says which version is there in its place.
_CAUSES = (
    (r"(libonnxruntime_providers_\S+): cannot open", CPU_ONLY.problem, CPU_ONLY.remedy),
    (
        r"(libcuda\.so\S*): cannot open",
        "there is no NVIDIA driver: {0} is missing",
        "Install the driver; in a container, start it with the GPU (docker run --gpus all).",
    ),
    (r"undefined symbol: (cu[A-Z]\w+)", "the NVIDIA driver is too old: it has no {0}", _DRIVER),
    (r"(driver version is insufficient)", "the NVIDIA driver is too old for CUDA{cuda}", _DRIVER),
    (
        r"(no CUDA-capable device)",
        "there is no GPU that CUDA can use",
        "Compare with nvidia-smi; CUDA_VISIBLE_DEVICES may hide it, and a unit needs gpu.conf.",
    ),
    (r"(invalid device ordinal)", "there is no GPU of that number", "nvidia-smi -L lists those there are."),
    (
        r"(no kernel image is available)",
        "this onnxruntime has no code for a GPU of this kind",
        "Use a GPU of another generation, or a build of onnxruntime made for this one.",
    ),
    (r"(libcudnn\S*): cannot open|(cuDNN is not available)", "cuDNN 9 is missing", _LIBRARIES),
    (
        r"(libnv(?:infer|onnxparser)\S*): cannot open|(TensorRT libraries)",
        "TensorRT 10 is missing",
        'Run: pip install "tensorrt>=10,<11", or write device = "cuda".',
    ),
    (r"(lib[\w-]+\.so\S*): cannot open", "{instead}: {0} is not found", _LIBRARIES),
    (
        r"(out of memory|ALLOC_FAILED|Failed to allocate memory)",
        "its memory is taken",
        "nvidia-smi shows by whom; free some, or use another device.",
    ),
)


def explain(message: str, cuda: str = "", other_cuda: str = "") -> Diagnosis:
    """What `message` means.

    `cuda` is the major version that onnxruntime was built for, `other_cuda` one that is installed instead.
    """
    version = f" {cuda}" if cuda else ""
    instead = (
        f"CUDA {other_cuda} is installed, and this onnxruntime needs CUDA{version}"
        if other_cuda
        else f"CUDA{version} is missing"
    )
    for pattern, problem, remedy in _CAUSES:
        match = re.search(pattern, message)
        if match:
            captured = next(group for group in match.groups() if group)
            return Diagnosis(
                problem.format(captured, cuda=version, instead=instead), remedy.format(cuda=version)
            )
    short = " ".join(message.split())
    failure = re.search(r"(CUDA|CUBLAS|CUDNN) failure \d+: [^;]+", short)  # the rest names source lines
    return Diagnosis(
        f"onnxruntime could not start it: {failure[0].strip() if failure else short[-300:]}",
        "Compare the versions of the driver, CUDA and cuDNN with those that onnxruntime-gpu wants.",
    )
