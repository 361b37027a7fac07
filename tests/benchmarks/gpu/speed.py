"""How fast: batch sizes, precisions, binding, tokenising, sentence-transformers, and what the search settles
on."""

import time
from collections.abc import Callable
from typing import Any

from freshvec.encoding.batching import plan_batches
from freshvec.encoding.budget import BatchBudget, first_guess
from freshvec.encoding.encoder import OnnxEncoder
from freshvec.encoding.machine import gpu_memory
from freshvec.encoding.session import OnnxSession
from freshvec.errors import ModelError
from freshvec.records import OutOfMemoryError, Tokens
from tests.benchmarks.gpu.setting import Setting, matrix_rate, median, sampled, seconds_of

Way = Callable[[OnnxSession, list[Tokens]], None]  # a batch through a session
SIZES = [2**power for power in range(12, 21)]  # 4k to 1M padded tokens


def flops_a_token(setting: Setting) -> float:
    """Multiplications and additions of the encoder's matrices for one token; attention's own share left
    out."""
    import json

    config = json.loads((setting.source / "config.json").read_text())
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    return float(2 * config["num_hidden_layers"] * (4 * hidden * hidden + 2 * hidden * inner))


def plain(session: OnnxSession, batch: list[Tokens]) -> None:
    """Inputs and outputs as arrays: onnxruntime copies them to and fro."""
    session.inference.run(["sentence_embedding"], session.feed(batch))


def kept(session: OnnxSession, batch: list[Tokens]) -> None:
    """As the daemon does on a GPU: inputs in buffers that are kept."""
    session.run_bound(session.feed(batch))


def fresh(session: OnnxSession, batch: list[Tokens]) -> None:
    """Inputs bound from the host's memory: onnxruntime allocates them on the device for every batch."""
    binding = session.inference.io_binding()
    for name, values in session.feed(batch).items():
        binding.bind_cpu_input(name, values)
    binding.bind_output("sentence_embedding", "cpu")
    session.inference.run_with_iobinding(binding)
    binding.copy_outputs_to_cpu()


def shrunk(session: OnnxSession, batch: list[Tokens]) -> None:
    """As kept, with the arena given back after every batch: what the daemon does only after a failure."""
    session.run_bound(session.feed(batch), session.shrinking)


WAYS: dict[str, Way] = {
    "plain": plain,
    "bound, buffers kept": kept,
    "bound, buffers fresh": fresh,
    "bound, arena shrunk after each": shrunk,
}


def binding(setting: Setting, size: int) -> dict[str, float]:
    """Texts a second by the way inputs come to the device, in turns, median of three."""
    tokens = setting.tokens
    seconds = {
        name: [encode_all(setting.encoder, tokens, size, way) for _ in range(3)] for name, way in WAYS.items()
    }
    return {name: len(tokens) / median(found) for name, found in seconds.items()}


def encode_all(encoder: OnnxEncoder, tokens: list[Tokens], size: int, way: Way | None = None) -> float:
    """Seconds to encode tokenised texts in windows of 50,000, sorted."""
    began = time.perf_counter()
    for start in range(0, len(tokens), 50_000):
        window = tokens[start : start + 50_000]
        for batch in plan_batches([len(text) for text in window], lambda: size):
            picked = [window[i] for i in batch.indices]
            if way is None:
                encoder.encode(picked)
            else:
                way(encoder.session, picked)
    return time.perf_counter() - began


def sweep(setting: Setting) -> dict[str, Any]:
    tokens = setting.tokens
    real = sum(map(len, tokens))
    rate = matrix_rate()
    found: dict[str, Any] = {"texts": len(tokens), "tokens": real, "fp16 matrix rate, TFLOP/s": rate / 1e12}
    for name, encoder in (("fp16", setting.encoder), ("fp32", setting.only_fp32())):
        some = tokens if name == "fp16" else tokens[:30_000]
        part = sum(map(len, some))
        encode_all(encoder, some[:5000], 65536)
        rows: dict[int, Any] = {}
        for size in SIZES:
            try:
                encode_all(encoder, some[: len(some) // 3], size)  # the shapes are warm
                seconds = min(encode_all(encoder, some, size) for _ in range(2 if name == "fp16" else 1))
            except OutOfMemoryError as error:
                rows[size] = {"out of memory": str(error)[-60:]}
                break
            rows[size] = {
                "texts/s": len(some) / seconds,
                "tokens/s": part / seconds,
                "share of the matrix rate": part * flops_a_token(setting) / seconds / rate,
            }
        found[name] = rows
    best = max(found["fp16"], key=lambda size: found["fp16"][size].get("tokens/s", 0))
    found["best size, fp16"] = best
    found["inputs, texts/s"] = binding(setting, best)
    with sampled(0.2) as sampler:
        for _ in range(3):
            encode_all(setting.encoder, tokens, best)
    found["utilisation while encoding, %"] = median(sampler.utilisation) if sampler.utilisation else None
    return found


def tensorrt(setting: Setting) -> dict[str, Any]:
    """TensorRT beside CUDA at one size: whether it starts or why not, how long its engines take to build, and
    its speed."""
    tokens, size = setting.tokens[:30_000], 16384
    try:
        began = time.perf_counter()
        encoder = OnnxEncoder(setting.artefact, "tensorrt")
        first = encode_all(encoder, tokens, size)  # builds engines as the shapes grow
    except ModelError as error:
        return {"not used": str(error)}
    warm, cuda = (
        min(encode_all(each, tokens, size) for _ in range(3)) for each in (encoder, setting.encoder)
    )
    return {
        "device": encoder.device,
        "seconds to load and see every shape once": time.perf_counter() - began - 3 * (warm + cuda),
        "of which encoding": first,
        "texts/s": len(tokens) / warm,
        "against CUDA": cuda / warm,
    }


def tokenising(setting: Setting) -> dict[str, Any]:
    texts = setting.many(setting.count)
    seconds = min(seconds_of(lambda: setting.encoder.tokenize(texts)) for _ in range(2))
    found = {"texts/s": len(texts) / seconds, "tokens/s": sum(map(len, setting.tokens)) / seconds}
    pages = [texts[i : i + 8192] for i in range(0, len(texts), 8192)]
    began = time.perf_counter()
    for page in pages:
        setting.encoder.tokenize(page)
    found["texts/s in pages of 8192"] = len(texts) / (time.perf_counter() - began)
    return found


def reference(setting: Setting) -> dict[str, Any]:
    """Tokenising included on both sides, alternated, median of three."""
    import torch
    from sentence_transformers import SentenceTransformer, models

    transformer = models.Transformer(str(setting.source), max_seq_length=setting.card.max_tokens)
    pooling = models.Pooling(setting.card.dimension, pooling_mode=setting.card.pooling)
    theirs = SentenceTransformer(
        modules=[transformer, pooling, models.Normalize()], device=setting.device
    ).half()
    texts = setting.many(setting.count // 3)
    rates: dict[int, float] = {}
    for size in (128, 512, 2048):
        theirs.encode(texts[:2000], batch_size=size)
        rates[size] = len(texts[:10_000]) / seconds_of(
            lambda size=size: theirs.encode(texts[:10_000], batch_size=size)
        )
    best = max(rates, key=lambda size: rates[size])
    size = 131072

    def ours() -> None:
        encode_all(setting.encoder, setting.encoder.tokenize(texts), size)

    ours()
    pairs = [(seconds_of(ours), seconds_of(lambda: theirs.encode(texts, batch_size=best))) for _ in range(3)]
    torch.cuda.empty_cache()
    return {
        "sentence-transformers fp16, texts/s by batch size": rates,
        "ours, tokenising included, texts/s": len(texts) / median([ours_ for ours_, _ in pairs]),
        "theirs at their best, texts/s": len(texts) / median([theirs_ for _, theirs_ in pairs]),
        "ours against theirs": median([theirs_ / ours_ for ours_, theirs_ in pairs]),
    }


def adaptive(setting: Setting) -> dict[str, Any]:
    """What the search settles on, beginning with the first guess for this device."""
    memory = gpu_memory(setting.encoder.device)
    budget = BatchBudget(first_guess(memory.free if memory else None))
    began, first = time.perf_counter(), budget.settled
    tokens = setting.tokens
    while not budget.is_settled and time.perf_counter() - began < 60:
        for start in range(
            0, len(tokens), 8192
        ):  # pages, as a backfill has them: every size meets every length
            page = tokens[start : start + 8192]
            for batch in plan_batches([len(text) for text in page], budget.next_size):
                picked = [page[i] for i in batch.indices]
                real, widest = sum(map(len, picked)), max(map(len, picked)) * len(picked)
                budget.observe(
                    batch.size, widest, real, seconds_of(lambda picked=picked: setting.encoder.encode(picked))
                )
    settled = min(encode_all(setting.encoder, tokens, budget.settled) for _ in range(2))
    return {
        "first guess": first,
        "settled": budget.settled,
        "is settled": budget.is_settled,
        "after seconds": time.perf_counter() - began,
        "tokens/s there": sum(map(len, tokens)) / settled,
    }
