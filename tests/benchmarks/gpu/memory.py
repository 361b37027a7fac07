"""The device's memory: running out of it on purpose, and staying flat over texts of wild lengths."""

import random
import threading
from typing import Any

import numpy as np

from freshvec.encoding.batching import plan_batches
from freshvec.encoding.budget import BatchBudget
from freshvec.encoding.dispatch import Dispatcher
from freshvec.encoding.encoder import OnnxEncoder
from freshvec.encoding.machine import gpu_memory
from freshvec.records import Urgency, Vector
from tests.benchmarks.gpu.right import cosines, encode
from tests.benchmarks.gpu.setting import Setting


def memory(setting: Setting) -> dict[str, Any]:
    return {"out of memory on purpose": ladder(setting), "wild lengths": wild(setting)}


def ladder(setting: Setting) -> dict[str, Any]:
    """A limit far under what the batches ask for: nothing may be lost."""
    tokens = setting.tokens[:20_000]
    weights = setting.artefact.graphs[setting.encoder.precision].megabytes * 1e6
    encoder = OnnxEncoder(setting.artefact, setting.device, memory_limit=int(weights * 2 + 400e6))
    budget = BatchBudget(262144)
    dispatcher = Dispatcher(encoder, budget)
    vectors = np.full((len(tokens), encoder.dimension), np.nan, dtype=np.float32)
    left, errors, done = [0], [0], threading.Event()
    batches = plan_batches([len(text) for text in tokens], budget.next_size)
    left[0] = len(batches)

    for batch in batches:

        def written(results: list[Vector | Exception], indices: list[int] = batch.indices) -> None:
            for index, result in zip(indices, results, strict=True):
                if isinstance(result, Exception):
                    errors[0] += 1
                else:
                    vectors[index] = result
            left[0] -= 1
            if not left[0]:
                done.set()

        dispatcher.submit(Urgency.BULK, [tokens[i] for i in batch.indices], batch.size, written)
    finished = done.wait(120)
    dispatcher.stop(5)
    wanted = encode(setting.encoder, tokens, 65536)
    return {
        "limit, MB": (weights * 2 + 400e6) / 1e6,
        "first size": 262144,
        "ceiling found": budget.ceiling,
        "finished": finished,
        "texts lost": int(np.isnan(vectors).any(1).sum()),
        "errors": errors[0],
        "worst cosine": float(cosines(vectors, wanted).min()),
    }


def wild(setting: Setting) -> dict[str, Any]:
    """500,000 texts whose lengths change all the time."""
    choose = random.Random(1)
    tokens = setting.tokens
    used = []
    for turn in range(20):
        picked = [tokens[choose.randrange(len(tokens))] for _ in range(setting.count // 4)]
        encode(setting.encoder, picked, choose.choice([4096, 16384, 65536, 131072]))
        now = gpu_memory(setting.encoder.device)
        if turn >= 1 and now:
            used.append(now.used)
    setting.encoder.session.shrinks_next = True  # as after a failure
    setting.encoder.encode(tokens[:1])
    now = gpu_memory(setting.encoder.device)
    return {
        "texts": 5 * setting.count,
        "GB in use, first": used[:1],
        "last": used[-1:],
        "most": max(used, default=None),
        "after the arena is shrunk": now and now.used,
    }
