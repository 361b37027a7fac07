"""OpenVINO beside ONNX Runtime on the same graph: why it is no provider. Needs `pip install openvino`."""

import time
from importlib.util import find_spec
from typing import Any

import numpy as np

from freshvec.encoding.batching import padded, plan_batches
from freshvec.pipeline.progress import resident_mib
from tests.benchmarks.harness import Report, median, one_line_texts, real_encoder, texts
from tests.exports import exported
from tests.support import MODEL, models_in

BUDGET = 512


def openvino(report: Report, quick: bool) -> None:
    """Texts come once, as in a backfill: OpenVINO compiles kernels for every new shape and keeps them."""
    if find_spec("openvino") is None:
        print("OpenVINO is not installed: its figures are left out")
        return
    encoder = real_encoder()
    theirs = _request(str(models_in(exported()).artefact(MODEL).path("fp32")))
    count = 400 if quick else 6000
    for name, rows in (("docstrings", texts(count)), ("one-line texts", one_line_texts(count))):
        ratios = []
        before = resident_mib()
        for start in range(0, len(rows), 1000):
            tokens = encoder.tokenize(rows[start : start + 1000])
            batches = [
                [tokens[i] for i in plan.indices]
                for plan in plan_batches([len(t) for t in tokens], lambda: BUDGET)
            ]
            began = time.perf_counter()
            ours = [encoder.encode(batch) for batch in batches]
            between = time.perf_counter()
            found = [theirs(batch) for batch in batches]
            ended = time.perf_counter()
            assert all(np.allclose(a, b, atol=1e-4) for a, b in zip(ours, found, strict=True)), (
                "the vectors differ"
            )
            ratios.append((between - began) / (ended - between))
        report.add(f"{name}: OpenVINO against ONNX Runtime", median(ratios), "×")
        report.add(
            f"{name}: resident memory that OpenVINO and {count} texts add", resident_mib() - before, "MiB"
        )


def _request(path: str) -> Any:
    """A function from a batch of tokens to vectors."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()

    def run(batch: Any) -> Any:
        ids, mask = padded(batch, 0)
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return np.array(request.infer(feed)[0])

    return run
