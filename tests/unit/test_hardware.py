"""The matrix rate: every library multiplies what it says it does, and one that is missing is not needed."""

import subprocess
import sys

import pytest

from freshvec.bench import matrix_rate as hardware
from freshvec.encoding.machine import cpu_limit
from freshvec.models.artefact import Precision


@pytest.mark.parametrize(
    ("precision", "libraries"),
    [("fp32", {"numpy", "onnxruntime", "torch"}), ("int8", {"onnxruntime", "torch"})],
)
def test_each_library_at_hand_is_asked(
    monkeypatch: pytest.MonkeyPatch, precision: Precision, libraries: set[str]
) -> None:
    monkeypatch.setattr(hardware, "_SECONDS", 0.0)
    monkeypatch.setitem(hardware._SQUARE, "cpu", 64)
    monkeypatch.setattr(hardware, "_TOKENS", 16)
    asked = {name for name, _ in hardware._libraries(precision, "cpu", cpu_limit())}
    assert asked == libraries
    rate = hardware.matrix_rate(precision, "cpu", 16)
    assert rate is not None
    assert rate.library in libraries
    assert rate.flops > 0


def test_without_torch_and_onnx_numpy_tells_fp32_and_nothing_tells_int8() -> None:
    program = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'onnx'):\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from freshvec.bench import matrix_rate as hardware\n"
        "hardware._SECONDS, hardware._TOKENS, hardware._SQUARE['cpu'] = 0.0, 16, 64\n"
        "print(hardware.matrix_rate('fp32', 'cpu', 16).library, hardware.matrix_rate('int8', 'cpu', 16))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["numpy", "None"], done.stderr
