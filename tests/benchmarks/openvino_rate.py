"""OpenVINO beside ONNX Runtime on the same fp32 graph, in each precision it has: why bf16 alone is used."""

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

from freshvec.encoding.batching import padded, plan_batches
from freshvec.encoding.cosine import cosines
from freshvec.records import Tokens, Vector
from tests.benchmarks.harness import Report, median, one_line_texts, real_encoder, texts
from tests.exports import exported
from tests.support import MODEL, models_in

BUDGET = 1024
Run = Callable[[list[Tokens]], Vector]


def openvino(report: Report, quick: bool) -> None:
    """They take turns batch by batch; CPU time, which a busy machine changes least, beside wall time."""
    if find_spec("openvino") is None:
        print("OpenVINO is not installed: its figures are left out")
        return
    encoder = real_encoder()
    path = str(models_in(exported()).artefact(MODEL).path("fp32"))
    runs: dict[str, Run] = {"ours": encoder.encode}
    runs |= {hint: _run(path, hint) for hint in ("f32", "f16", "bf16")}
    count = 300 if quick else 3000
    for name, rows in (("docstrings", texts(count)), ("one-line texts", one_line_texts(count))):
        tokens = encoder.tokenize(rows)
        plans = plan_batches([len(text) for text in tokens], lambda: BUDGET)
        wall: dict[str, list[float]] = {each: [] for each in runs}
        busy: dict[str, list[float]] = {each: [] for each in runs}
        worst = dict.fromkeys(runs, 1.0)
        for plan in plans:
            batch = [tokens[i] for i in plan.indices]
            exact = encoder.encode(batch)
            for each, run in runs.items():
                began, before = time.perf_counter(), time.process_time()
                found = run(batch)
                wall[each].append(time.perf_counter() - began)
                busy[each].append(time.process_time() - before)
                worst[each] = min(worst[each], float(cosines(found, exact).min()))
        for each in list(runs)[1:]:
            where = f"{name}: OpenVINO in {each} against ONNX Runtime in fp32"
            report.add(where, median([a / b for a, b in zip(wall["ours"], wall[each], strict=True)]), "×")
            report.add(f"{where}, CPU time", sum(busy["ours"]) / sum(busy[each]), "×")
            report.add(f"{name}: worst cosine in {each}", worst[each], "")


def _run(path: str, hint: str) -> Run:
    """A function from a batch of tokens to vectors."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
    request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()

    def run(batch: list[Tokens]) -> Any:
        ids, mask = padded(batch, 0, 16)
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return np.array(request.infer(feed)[0])

    return run
