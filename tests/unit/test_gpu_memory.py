"""The memory of a GPU by NVIDIA's binding: with a library that stands in for the driver's, and without."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from freshvec.encoding.machine import gpu_memory

LIBRARY = r"""
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory;
static const char *uuids[] = {"GPU-8932f937-aaaa", "GPU-12345678-bbbb"};
static int devices[] = {0, 1, 2};
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned place, void **device) {
  if (place >= 2) return 2;
  *device = &devices[place];
  return 0;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
  if (strcmp(uuid, "MIG-1")) return 6;
  *device = &devices[2];
  return 0;
}
int nvmlDeviceGetUUID(int *device, char *text, unsigned length) {
  strncpy(text, uuids[*device], length);
  return 0;
}
int nvmlDeviceGetMemoryInfo(int *device, memory *found) {
  if (FAILS) return 999;
  found->total = (*device + 1) * 1000000000ull;
  found->free = 250000000ull;
  return 0;
}
const char *nvmlErrorString(int code) { return "an error"; }
"""
ASKED = """
import json, sys
from freshvec.encoding.machine import gpu_memory
found = gpu_memory(sys.argv[1])
print(json.dumps(found and [found.free, found.total, round(found.used, 9)]))
"""


def asked(
    folder: Path, device: str, visible: str | None = None, *, fails: bool = False
) -> list[float] | None:
    """What is found of a device, in a process whose NVIDIA library is the one above."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("the library that stands in needs a C compiler")
    name = folder / "libnvidia-ml.so.1"
    options = ["-shared", "-fPIC", f"-DFAILS={int(fails)}", "-x", "c", "-", "-o", str(name)]
    subprocess.run([compiler, *options], input=LIBRARY, text=True, check=True)
    environ = {**os.environ, "LD_LIBRARY_PATH": str(folder), "CUDA_VISIBLE_DEVICES": visible or ""}
    command = [sys.executable, "-c", ASKED, device]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    found: list[float] | None = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("device", "visible", "total"),
    [
        ("cuda", None, 1.0),
        ("cuda:1", None, 2.0),
        ("cuda", "1,0", 2.0),
        ("cuda:1", "1,0", 1.0),
        ("cuda", "GPU-12345678-bbbb", 2.0),
        ("tensorrt", "GPU-1234", 2.0),
        ("cuda", "MIG-1", 3.0),
    ],
)
def test_the_gpu_that_is_asked_is_the_one_cuda_calls_so(
    tmp_path: Path, device: str, visible: str | None, total: float
) -> None:
    assert asked(tmp_path, device, visible) == [0.25, total, total - 0.25]


@pytest.mark.parametrize(
    ("device", "visible"), [("cuda:7", None), ("cuda", "GPU-none"), ("cuda", "MIG-2"), ("cpu", None)]
)
def test_of_what_is_not_there_nothing_is_known(tmp_path: Path, device: str, visible: str | None) -> None:
    assert asked(tmp_path, device, visible) is None


def test_an_error_of_the_driver_is_no_answer(tmp_path: Path) -> None:
    assert asked(tmp_path, "cuda", fails=True) is None


def test_without_the_binding_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_memory("cuda") is None


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="this machine has an NVIDIA driver")
def test_without_a_driver_nothing_is_known() -> None:
    pytest.importorskip("pynvml")
    assert gpu_memory("cuda") is None
