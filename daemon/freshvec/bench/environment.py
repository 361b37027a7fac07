"""Where figures were measured."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from freshvec import __version__
from freshvec.encoding.machine import cpu_limit, processor

_PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "numpy",
    "tokenizers",
    "torch",
    "sentence-transformers",
    "fastembed",
)


def describe(packages: tuple[str, ...] = _PACKAGES) -> dict[str, Any]:
    """Processor, cores this process may use, GPU, Python, the packages that are installed, and the date."""
    installed = {"freshvec": __version__}
    for name in packages:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "processor": processor()[0],
        "cores": cpu_limit(),
        "gpu": _gpu(),
        "python": platform.python_version(),
        "packages": installed,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _gpu() -> str | None:
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        names = subprocess.run(
            query, capture_output=True, text=True, timeout=10, check=True
        ).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    return ", ".join(names) or None
