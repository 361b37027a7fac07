"""The matrix rate: every installed library is asked, and none is needed."""

import subprocess
import sys

import pytest

from freshvec.bench.matrix_rate import Effort, libraries, matrix_rate
from freshvec.encoding.machine import cpu_limit
from freshvec.models.artefact import Precision
from tests.support import NEEDS_EXPORT

LITTLE = Effort(tokens=16, cpu_square=64, seconds=0.0)


@pytest.mark.parametrize(
    ("precision", "installed"),
    [("fp32", {"numpy", "onnxruntime", "torch"}), ("int8", {"onnxruntime", "torch"})],
)
def test_each_installed_library_is_asked(precision: Precision, installed: set[str]) -> None:
    for name in installed:
        pytest.importorskip("onnx" if name == "onnxruntime" else name, reason=NEEDS_EXPORT)
    asked = {name for name, _ in libraries(precision, "cpu", cpu_limit())}
    assert asked == installed
    rate = matrix_rate(precision, "cpu", 16, effort=LITTLE)
    assert rate is not None
    assert rate.library in installed
    assert rate.flops > 0


def test_without_torch_and_onnx_numpy_tells_fp32_and_nothing_tells_int8() -> None:
    program = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'onnx'):\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from freshvec.bench.matrix_rate import Effort, matrix_rate\n"
        "little = Effort(tokens=16, cpu_square=64, seconds=0.0)\n"
        "print(matrix_rate('fp32', 'cpu', 16, effort=little).library)\n"
        "print(matrix_rate('int8', 'cpu', 16, effort=little))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["numpy", "None"], done.stderr
