"""How fast the hardware multiplies matrices: the limit of an encoder, whose own rate is a share of it.

One library can be far from what a processor can do: on one AMD chip torch reached half the rate of ONNX
Runtime. So every installed library tries, on the model's shapes and on a large square, and the best rate
counts.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from freshvec.encoding import providers
from freshvec.encoding.machine import cpu_limit
from freshvec.models.artefact import Precision

_LEAST = 3  # runs of each shape and library, the first of which warms up

Shape = tuple[int, int, int]
# Makes the product [rows, inner] × [inner, columns]; each call of the result multiplies so many times and
# waits for it.
Product = Callable[[Shape], Callable[[int], None]]


@dataclass(frozen=True)
class MatrixRate:
    """The best rate in operations per second, additions counted too, and the library that reached it."""

    flops: float
    library: str
    shape: Shape


@dataclass(frozen=True)
class Effort:
    """How large the products are, and how long each shape and library tries."""

    tokens: int = 1024  # rows of a product of the model's shapes: a batch on a CPU
    cpu_square: int = 2048  # rows and columns of the large square
    gpu_square: int = 8192
    seconds: float = 0.15


def matrix_rate(
    precision: Precision, device: str, hidden: int, threads: int | None = None, effort: Effort | None = None
) -> MatrixRate | None:
    """The matrix-multiply rate of `device` (cpu, cuda:1) for a model of width `hidden`.

    `threads` are the CPU's, None for every core the process may use. The rate is None where no installed
    library multiplies in that precision there.
    """
    effort = effort or Effort()
    if device != "cpu":
        device = f"cuda:{device.partition(':')[2] or 0}"  # also where TensorRT runs
    square = effort.cpu_square if device == "cpu" else effort.gpu_square
    shapes = [
        (effort.tokens, hidden, hidden),
        (effort.tokens, hidden, 4 * hidden),
        (effort.tokens, 4 * hidden, hidden),
        (square, square, square),
    ]
    best: MatrixRate | None = None
    with _threads(threads or cpu_limit()):
        for library, product in libraries(precision, device, threads or cpu_limit()):
            for shape in shapes:
                rate = _rate(product(shape), shape, effort.seconds)
                if best is None or rate > best.flops:
                    best = MatrixRate(rate, library, shape)
    return best


def _rate(multiply: Callable[[int], None], shape: Shape, seconds: float) -> float:
    """The fastest of several short runs, in operations per second."""
    began = time.perf_counter()
    multiply(1)  # the library chooses kernels and touches memory
    once = time.perf_counter() - began
    times = max(1, min(50, int(0.02 / once)))  # a run long enough for the clock
    best, runs = float("inf"), 0
    while runs < _LEAST or time.perf_counter() - began < seconds:
        started = time.perf_counter()
        multiply(times)
        best = min(best, (time.perf_counter() - started) / times)
        runs += 1
    return 2.0 * shape[0] * shape[1] * shape[2] / best


def libraries(precision: Precision, device: str, threads: int) -> Iterator[tuple[str, Product]]:
    """Name and product of every installed library that multiplies in that precision there."""
    if (
        precision == "fp32"
        and device == "cpu"
        and (_module("threadpoolctl") or threads == len(os.sched_getaffinity(0)))
    ):
        yield "numpy", _numpy
    if _module("onnx") and precision != "bf16":
        yield "onnxruntime", lambda shape: _onnxruntime(shape, precision, device, threads)
    torch = _module("torch")
    if torch and (device == "cpu" or (torch.cuda.is_available() and precision != "int8")):
        yield "torch", lambda shape: _torch(torch, shape, precision, device)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Give numpy and torch as many threads as the encoder has, until this ends."""
    torch, threadpoolctl = _module("torch"), _module("threadpoolctl")
    before = torch.get_num_threads() if torch else 0
    with threadpoolctl.threadpool_limits(count) if threadpoolctl else nullcontext():
        try:
            if torch:
                torch.set_num_threads(count)
            yield
        finally:
            if torch:
                torch.set_num_threads(before)


def _module(name: str) -> Any:
    """A library, None where it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        return None


def _operands(shape: Shape, precision: Precision) -> tuple[NDArray[Any], NDArray[Any]]:
    """Two matrices of that precision; for int8 unsigned and signed bytes, as in quantised graphs; for bf16,
    which numpy has not, in fp32."""
    rows, inner, columns = shape
    chance = np.random.default_rng(0)
    if precision == "int8":
        unsigned = chance.integers(0, 255, (rows, inner), np.uint8)
        return unsigned, chance.integers(-127, 127, (inner, columns), np.int8)
    kind = np.float16 if precision == "fp16" else np.float32
    left, right = chance.random((rows, inner), np.float32), chance.random((inner, columns), np.float32)
    return left.astype(kind), right.astype(kind)


def _numpy(shape: Shape) -> Callable[[int], None]:
    a, b = _operands(shape, "fp32")
    out = np.empty((shape[0], shape[2]), np.float32)

    def multiply(times: int) -> None:
        for _ in range(times):
            np.matmul(a, b, out=out)

    return multiply


def _torch(torch: Any, shape: Shape, precision: Precision, device: str) -> Callable[[int], None]:
    a, b = (torch.from_numpy(each).to(device) for each in _operands(shape, precision))
    if precision == "int8":
        a = a.to(torch.int8)  # torch multiplies signed by signed
    elif precision == "bf16":
        a, b = a.to(torch.bfloat16), b.to(torch.bfloat16)
    product = torch._int_mm if precision == "int8" else torch.mm

    def multiply(times: int) -> None:
        for _ in range(times):
            product(a, b)
        if device != "cpu":
            torch.cuda.synchronize(device)

    return multiply


def _onnxruntime(shape: Shape, precision: Precision, device: str, threads: int) -> Callable[[int], None]:
    """A graph of one node. Its second operand is a weight, as in an encoder: the runtime may pack it."""
    from onnx import TensorProto, helper, numpy_helper

    ort = providers.runtime()
    a, b = _operands(shape, precision)
    kinds = {
        "fp32": (TensorProto.FLOAT,) * 2,
        "fp16": (TensorProto.FLOAT16,) * 2,
        "int8": (TensorProto.UINT8, TensorProto.INT32),
    }
    given, made = kinds[precision]
    node = helper.make_node("MatMulInteger" if precision == "int8" else "MatMul", ["a", "b"], ["y"])
    inputs = [helper.make_tensor_value_info("a", given, a.shape)]
    outputs = [helper.make_tensor_value_info("y", made, (shape[0], shape[2]))]
    graph = helper.make_graph([node], "product", inputs, outputs, [numpy_helper.from_array(b, "b")])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    providers.preload(device)
    session = ort.InferenceSession(
        proto.SerializeToString(),
        options,
        providers=providers.provider_options(device, None, Path(), precision),
        enable_fallback=0,
    )
    binding = session.io_binding()
    place = providers.memory_place(device)
    binding.bind_ortvalue_input("a", ort.OrtValue.ortvalue_from_numpy(a, *place))
    binding.bind_output("y", *place)

    def multiply(times: int) -> None:
        for _ in range(times):
            session.run_with_iobinding(binding)

    return multiply
