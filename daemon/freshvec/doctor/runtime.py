"""Versions of what runs, and that nothing is reported to anybody."""

import os
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from freshvec import __version__
from freshvec.doctor.finding import Finding, fault, ok, warning
from freshvec.doctor.place import Place
from freshvec.encoding.providers import runtime
from freshvec.errors import ModelError

_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino", "psycopg", "tokenizers", "numpy")


def versions(place: Place) -> Iterator[Finding]:
    """freshvec, Python, and the packages that encode and talk to the database."""
    found = {name: _version(name) for name in _PACKAGES}
    there = ", ".join(f"{name} {number}" for name, number in found.items() if number)
    yield ok("versions", f"freshvec {__version__}, Python {platform.python_version()}, {there}")
    if found["onnxruntime"] and found["onnxruntime-gpu"]:
        yield fault(
            "versions",
            "onnxruntime and onnxruntime-gpu are both installed",
            "each overwrites files of the other, and the GPU is not used",
            "pip uninstall onnxruntime onnxruntime-gpu; pip install 'freshvec[gpu]' (or [cpu])",
        )
    try:
        runtime()
    except ModelError as error:
        yield fault("versions", error.problem, "nothing can be encoded without it", error.remedy)


def telemetry(place: Place) -> Iterator[Finding]:
    """ONNX Runtime reports to its makers unless it is told not to before it is loaded."""
    if os.environ.get("ORT_DISABLE_TELEMETRY") == "1":
        yield ok("telemetry", "off: ORT_DISABLE_TELEMETRY=1 is set before onnxruntime is loaded")
        return
    yield warning(
        "telemetry",
        "ORT_DISABLE_TELEMETRY is not 1",
        "onnxruntime would write a device id into the user's cache and report to its makers",
        "export ORT_DISABLE_TELEMETRY=1",
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
