"""What new shapes cost: a cold pass against a warm one, with and without cuDNN's attention, and on a grid of
shapes."""

import time
from typing import Any

from freshvec.encoding.machine import gpu_memory
from freshvec.records import Tokens
from tests.benchmarks.gpu.setting import Setting, rates
from tests.benchmarks.gpu.variants import (
    AS_IT_COMES,
    EFFICIENT,
    NO_CUDNN,
    PAGE,
    Planned,
    encode,
    kernels,
    planned,
    planned_on_grid,
    resident_mb,
    session,
)


def passes(setting: Setting, env: dict[str, str], batches: list[Planned]) -> dict[str, Any]:
    """The same batches twice through a fresh session and once more: what was warm at last is its rate."""
    made = session(setting, env)
    before, host = gpu_memory(made.device), resident_mb()
    cold = encode(made, batches)
    warm = min(encode(made, batches) for _ in range(2))
    after = gpu_memory(made.device)
    shapes = len({batch.shape for batch in batches})
    padded = sum(rows * length for rows, length in (batch.shape for batch in batches))
    real = sum(len(text) for batch in batches for text in batch.tokens[: batch.texts])
    return {
        "attention": kernels(setting, env),
        "batches": len(batches),
        "shapes": shapes,
        "padding, share": 1 - real / padded,
        "cold, s": cold,
        "warm, s": warm,
        "a new shape, ms": (cold - warm) / shapes * 1000,
        "host memory grew, MB": resident_mb() - host,
        "device memory grew, GB": after and before and after.used - before.used,
        **rates(setting, real, sum(batch.texts for batch in batches), warm),
    }


def cold_and_warm(setting: Setting) -> dict[str, Any]:
    """Experiments 1 and 2: as it comes, without cuDNN, and with the memory-efficient kernel alone."""
    batches = planned(setting.tokens[: 8 * PAGE])
    found = {}
    for name, env in (
        ("as it comes", AS_IT_COMES),
        ("without cuDNN", NO_CUDNN),
        ("efficient alone", EFFICIENT),
    ):
        found[name] = passes(setting, env, batches)
        print(name, found[name], flush=True)
    return found


def grid(setting: Setting) -> dict[str, Any]:
    """Experiment 3: shapes from a grid, with and without cuDNN; and what warming the whole grid takes."""
    batches = planned_on_grid(setting.tokens[: 8 * PAGE])
    found: dict[str, Any] = {}
    for name, env in (("as it comes", AS_IT_COMES), ("without cuDNN", NO_CUDNN)):
        found[name] = passes(setting, env, batches)
        print(name, found[name], flush=True)
    return found


def many_shapes(setting: Setting) -> dict[str, Any]:
    """Host and device memory over 2,000 different shapes, each met twice: the second round must cost nothing
    more."""
    made = session(setting, AS_IT_COMES, setting.packed)
    text = Tokens(setting.tokens[0].ids.repeat(256)[:256])
    count = 6 if setting.quick else 2000
    shapes = [(1 + 13 * n % (9 if setting.quick else 249), 16 * (1 + n % 16)) for n in range(count)]
    found = {}
    for name in ("first round", "second round"):
        began = time.perf_counter()
        for rows, length in shapes:
            made.run([Tokens(text.ids[:length])] * rows)
        now = gpu_memory(made.device)
        found[name] = {
            "shapes": len(set(shapes)),
            "seconds": time.perf_counter() - began,
            "host, MB": resident_mb(),
            "device, GB": now and now.used,
        }
    return found
