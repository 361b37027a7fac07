"""Ways to make a packed graph leaner, each alone and both: its tokens packed on the host, Q, K and V by
products of their own."""

import tempfile
from pathlib import Path
from typing import Any

from freshvec.encoding import session as product
from freshvec.export.packing import packed
from freshvec.records import Vector
from tests.benchmarks.gpu.right import cosines
from tests.benchmarks.gpu.setting import Setting, rates
from tests.benchmarks.gpu.variants import (
    AS_IT_COMES,
    NO_CUDNN,
    PAGE,
    SIZE,
    Planned,
    encode,
    kernels,
    planned,
    session,
    vectors,
)

WAYS = {
    "as before": {"flat": False, "apart": False},
    "packed on the host": {"flat": True, "apart": False},
    "three products": {"flat": False, "apart": True},
    "both": {"flat": True, "apart": True},
}
_SIZES = (SIZE, 4 * SIZE)  # padded tokens a batch
_LANES = (1, 2, 3)  # batches under way


def leaner(setting: Setting) -> dict[str, Any]:
    """Rates of each way by batch size and batches under way, and its vectors against the padded graph's."""
    import onnx

    found: dict[str, Any] = {}
    before, product.LANES = product.LANES, max(_LANES)  # as many sets of input buffers
    try:
        compared = planned(setting.tokens[: 8 * PAGE])[::8]
        wanted = vectors(session(setting, NO_CUDNN), compared)
        with tempfile.TemporaryDirectory() as folder:
            for name, way in WAYS.items():
                path = Path(folder, f"{name}.onnx")
                try:
                    onnx.save(packed(onnx.load(str(setting.artefact.path("fp16"))), **way), str(path))
                    found[name] = _right(setting, path, compared, wanted)
                except Exception as error:  # onnxruntime raises many kinds
                    found[name] = {"error": repr(error)[-300:]}
                print(name, found[name], flush=True)
                for size in _SIZES[: 1 if setting.quick else None]:
                    found[f"{name}, {size} tokens"] = _rates(setting, path, size)
                    print(name, size, found[f"{name}, {size} tokens"], flush=True)
    finally:
        product.LANES = before
    return found


def _right(setting: Setting, path: Path, batches: list[Planned], wanted: Vector) -> dict[str, Any]:
    """Which kernel attends, and the worst cosine."""
    made = session(setting, AS_IT_COMES, path)
    worst = float(cosines(vectors(made, batches), wanted).min())
    return {"worst cosine": worst, "attention": kernels(setting, AS_IT_COMES, path)}


def _rates(setting: Setting, path: Path, size: int) -> dict[str, Any]:
    """Seconds of the first pass, and what later ones make of so many batches under way."""
    found: dict[str, Any] = {}
    batches = planned(setting.tokens[: 8 * PAGE], size)
    texts, real = sum(b.texts for b in batches), sum(len(t) for b in batches for t in b.tokens)
    try:
        made = session(setting, AS_IT_COMES, path)
        found["cold, s"] = encode(made, batches)
        for lanes in _LANES:
            seconds = min(encode(made, batches, lanes) for _ in range(2))
            found[f"{lanes} under way"] = rates(setting, real, texts, seconds)
    except Exception as error:  # what was measured before it stays
        found["error"] = repr(error)[-300:]
    return found
