"""Batches under way at once, batch sizes, and tokenising in processes and in threads."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from freshvec.encoding import session as product
from freshvec.encoding.machine import cpu_limit
from freshvec.encoding.tokenizer import Tokenizer
from freshvec.encoding.tokenizer_pool import TokenizerPool, pool_processes
from tests.benchmarks.gpu.setting import Setting, rates
from tests.benchmarks.gpu.variants import AS_IT_COMES, PAGE, encode, planned, planned_on_grid, session


def in_flight(setting: Setting) -> dict[str, Any]:
    """Experiment 5, the encoder's side: one and two batches under way, padded and packed, by size."""
    found: dict[str, Any] = {}
    product.LANES = 2
    for name, graph, plan in (
        ("padded on the grid", setting.graph, planned_on_grid),
        ("packed", setting.packed, planned),
    ):
        for size in (65536, 131072, 262144)[: 1 if setting.quick else None]:
            made = session(setting, AS_IT_COMES, graph)
            batches = plan(setting.tokens[: 8 * PAGE], size)
            texts = sum(batch.texts for batch in batches)
            real = sum(len(text) for batch in batches for text in batch.tokens[: batch.texts])
            for lanes in (1, 2):
                encode(made, batches * (lanes if graph == setting.graph else 1), lanes)
                seconds = min(encode(made, batches, lanes) for _ in range(2))
                found[f"{name}, {size} tokens, {lanes} under way"] = rates(setting, real, texts, seconds)
                print(name, size, lanes, {"tokens/s": real / seconds}, flush=True)
    return found


def tokenising(setting: Setting) -> dict[str, Any]:
    """Experiment 5, the tokenizer's side: pages of rows, one after the other, as the reader has them."""
    texts = setting.many(setting.count // 2)
    given = setting.artefact.tokenizer_path, setting.card.max_tokens, setting.card.document_prefix
    ways: dict[str, Callable[[], Any]] = {
        "tokenizers, its own threads": lambda: Tokenizer(*given),
        f"tokenizers, {pool_processes(cpu_limit())} processes": lambda: TokenizerPool(
            *given, pool_processes(cpu_limit()), setting.artefact.tokenizer_sha256
        ),
        "nanotoken, its own threads": lambda: Tokenizer(*given, is_quick=True),
    }
    found: dict[str, Any] = {}
    for name, make in ways.items():
        try:
            tokenizer = make()
            tokenizer.encode(texts[:PAGE])
            began, tokens = time.perf_counter(), 0
            for start in range(0, len(texts), PAGE // 4):
                tokens += sum(map(len, tokenizer.encode(texts[start : start + PAGE // 4])))
            seconds = time.perf_counter() - began
            found[name] = {"texts/s": len(texts) / seconds, "tokens/s": tokens / seconds}
            if isinstance(tokenizer, TokenizerPool):
                tokenizer.close()
        except Exception as error:  # a package that is missing
            found[name] = {"error": repr(error)}
        print(name, found[name], flush=True)
    found["ids equal"] = same_ids(setting, texts[:20_000])
    return found


def same_ids(setting: Setting, texts: list[str]) -> str:
    """How many texts have the same ids by both libraries."""
    given = setting.artefact.tokenizer_path, setting.card.max_tokens, setting.card.document_prefix
    theirs, ours = (Tokenizer(*given, is_quick=quick).encode(texts) for quick in (True, False))
    equal = sum(np.array_equal(a.ids, b.ids) for a, b in zip(theirs, ours, strict=True))
    return f"{equal} of {len(texts)}"
