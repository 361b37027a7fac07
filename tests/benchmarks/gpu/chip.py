"""The chip itself: its matrix rate, its memory's rate, and which kernels a warm batch is made of."""

import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from freshvec.encoding import providers
from freshvec.encoding.session import OnnxSession
from freshvec.export.packing import packed
from tests.benchmarks.gpu.setting import Setting, matrix_rate, rates
from tests.benchmarks.gpu.variants import (
    AS_IT_COMES,
    PAGE,
    Planned,
    encode,
    planned,
    planned_on_grid,
    session,
)


def chip(setting: Setting) -> dict[str, Any]:
    import torch

    a = torch.empty(2**30, dtype=torch.float16, device="cuda").normal_()
    b = torch.empty_like(a)
    b.copy_(a)
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(20):
        b.copy_(a)
    torch.cuda.synchronize()
    copied = 20 * 2 * a.nbytes / (time.perf_counter() - began)
    del a, b
    torch.cuda.empty_cache()
    return {"fp16 matrix rate, TFLOP/s": matrix_rate() / 1e12, "copy, TB/s": copied / 1e12}


def kernel_times(setting: Setting) -> dict[str, Any]:
    """Microseconds of each kernel in some warm batches, by torch's profiler, which sees every kernel of the
    process."""
    from torch.profiler import ProfilerActivity, profile

    batches = planned(setting.tokens[: 2 * PAGE])
    made = session(setting, AS_IT_COMES, setting.packed)
    encode(made, batches)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        seconds = encode(made, batches)
    times: Counter[str] = Counter()
    for event in profiler.events():
        times[event.name[:110]] += event.device_time
    return {
        "tokens": sum(len(t) for b in batches for t in b.tokens),
        "seconds": seconds,
        "kernels, s": sum(times.values()) / 1e6,
        "µs by kernel": dict(times.most_common(16)),
    }


def cuda_graphs(setting: Setting) -> dict[str, Any]:
    """Experiment 6: one shape captured and replayed, against the same shape launched kernel by kernel."""
    found: dict[str, Any] = {}
    for rows, length in ((1, 16), (64, 64), (512, 128)):
        text = setting.tokens[0].ids.repeat(length)[:length]
        shape = Planned([type(setting.tokens[0])(text)] * rows, rows)
        plain = session(setting, AS_IT_COMES)
        encode(plain, [shape] * 5)
        launched = min(encode(plain, [shape] * 50) for _ in range(3)) / 50
        try:
            replayed = _replayed(setting, plain, shape)
        except Exception as error:  # what cannot be captured is said by onnxruntime
            found[f"{rows} × {length}"] = {"launched, ms": launched * 1000, "error": str(error)[-300:]}
            continue
        found[f"{rows} × {length}"] = {
            "launched, ms": launched * 1000,
            "replayed, ms": replayed * 1000,
            **rates(setting, rows * length, rows, replayed),
        }
        print(rows, length, found[f"{rows} × {length}"], flush=True)
    return found


def _replayed(setting: Setting, plain: OnnxSession, batch: Planned) -> float:
    """Seconds a batch, inputs copied in and the output copied out each time, as without a graph."""
    ort = providers.runtime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    chosen = providers.provider_options(setting.device, None, setting.graph.parent)
    chosen[0][1]["enable_cuda_graph"] = "1"
    made = ort.InferenceSession(str(setting.graph), options, providers=chosen, enable_fallback=0)
    feed = plain.feed(batch.tokens)
    there = {name: ort.OrtValue.ortvalue_from_numpy(value, "cuda", 0) for name, value in feed.items()}
    out = ort.OrtValue.ortvalue_from_shape_and_type(
        [len(batch.tokens), setting.card.dimension], np.float32, "cuda", 0
    )
    binding = made.io_binding()
    for name, value in there.items():
        binding.bind_ortvalue_input(name, value)
    binding.bind_ortvalue_output("sentence_embedding", out)

    def once() -> None:
        for name, value in feed.items():
            there[name].update_inplace(value)
        made.run_with_iobinding(binding)
        out.numpy()

    for _ in range(5):
        once()
    began = time.perf_counter()
    for _ in range(50):
        once()
    return (time.perf_counter() - began) / 50


def base_size(setting: Setting) -> dict[str, Any]:
    """A model of BERT-base's shape with random weights: its rate padded and packed."""
    if setting.base is None:
        return {"not measured": "give --base GRAPH"}
    import onnx

    batches = planned_on_grid(setting.tokens[: 3 * PAGE])
    real = sum(len(text) for batch in batches for text in batch.tokens[: batch.texts])
    found: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp())
    for name, graph in (("packed", folder / "packed.onnx"), ("packed on the GPU", folder / "before.onnx")):
        is_lean = name == "packed"
        onnx.save(packed(onnx.load(str(setting.base)), flat=is_lean, apart=is_lean), str(graph))
        made = session(setting, AS_IT_COMES, graph)
        for lanes in (1, 2):
            encode(made, batches * lanes, lanes)
            seconds = min(encode(made, batches, lanes) for _ in range(2))
            measured = rates(setting, real, sum(b.texts for b in batches), seconds, setting.base_flops)
            found[f"{name}, {lanes} under way"] = measured
        print(name, found, flush=True)
    return found
