"""fp16 on the GPU against torch fp32: cosines, batch against single, overflow, and where the nodes run."""

import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from freshvec.encoding.batching import padded, plan_batches
from freshvec.encoding.encoder import OnnxEncoder
from freshvec.encoding.providers import provider_options, runtime
from freshvec.models.artefact import Artefact, checksum
from freshvec.records import Tokens, Vector
from tests.benchmarks.gpu.setting import Setting


def right(setting: Setting) -> dict[str, Any]:
    encoder = setting.encoder
    step = max(1, len(setting.texts) // 3000)
    tokens = encoder.tokenize(setting.texts[::step][:3000])
    wanted = torch_fp32(setting, tokens)
    together = encode(encoder, tokens, 65536)
    alone = np.concatenate([encoder.encode([text]) for text in tokens[::10]])
    against = cosines(together, wanted)
    return {
        "device": encoder.device,
        "precision": encoder.precision,
        "texts": len(tokens),
        "worst cosine against torch fp32": float(against.min()),
        "mean cosine": float(against.mean()),
        "worst cosine, batch against single": float(cosines(together[::10], alone).min()),
        "largest difference, batch against single": float(np.abs(together[::10] - alone).max()),
        "not finite": int((~np.isfinite(together)).any(1).sum()),
    }


def encode(encoder: OnnxEncoder, tokens: list[Tokens], size: int) -> Vector:
    vectors = np.empty((len(tokens), encoder.dimension), dtype=np.float32)
    for batch in plan_batches([len(text) for text in tokens], lambda: size):
        vectors[batch.indices] = encoder.encode([tokens[i] for i in batch.indices])
    return vectors


def cosines(a: Vector, b: Vector) -> Vector:
    cosine: Vector = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return cosine


def torch_fp32(setting: Setting, tokens: list[Tokens]) -> Vector:
    """The model's own embeddings by torch in fp32, on the GPU without TF32."""
    import torch
    from transformers import AutoModel

    torch.backends.cuda.matmul.allow_tf32 = False
    model = (
        AutoModel.from_pretrained(str(setting.source), use_safetensors=True, attn_implementation="eager")
        .eval()
        .to(setting.device)
        .float()
    )
    vectors = np.empty((len(tokens), setting.card.dimension), dtype=np.float32)
    with torch.inference_mode():
        for batch in plan_batches([len(text) for text in tokens], lambda: 16384):
            ids, mask = (
                torch.from_numpy(part).to(setting.device)
                for part in padded([tokens[i] for i in batch.indices], setting.artefact.pad_id)
            )
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
            kept = mask.unsqueeze(-1).float()
            pooled = hidden[:, 0] if setting.card.pooling == "cls" else (hidden * kept).sum(1) / kept.sum(1)
            vectors[batch.indices] = torch.nn.functional.normalize(pooled).cpu().numpy()
    del model
    torch.cuda.empty_cache()
    return vectors


def nodes(setting: Setting) -> dict[str, Any]:
    """How many kernels of one batch ran where, from ONNX Runtime's own profile, and what it says about nodes
    left to the CPU."""
    ort, tokens = runtime(), setting.tokens[:64]
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.log_severity_level = 0
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("w+") as log:
        options.profile_file_prefix = f"{folder}/profile"
        graph, offered = (
            setting.artefact.path(setting.encoder.precision),
            provider_options(setting.device, None, Path(folder), setting.encoder.precision),
        )
        with stderr_into(log):
            session = ort.InferenceSession(str(graph), options, providers=offered)
            ids, mask = padded(tokens, setting.artefact.pad_id)
            feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            session.run(None, {entry.name: feed[entry.name] for entry in session.get_inputs()})
        events = json.loads(Path(session.end_profiling()).read_text())
        log.seek(0)
        said = [
            line.split("] ", 1)[-1].strip()[:300]
            for line in log
            if "fallback to CPU" in line or "Node(s) placed on" in line
        ]
    ran = [
        (e["args"]["provider"], e["args"]["op_name"])
        for e in events
        if e.get("args", {}).get("provider") and e["name"].endswith("_kernel_time")
    ]
    counted = {f"{provider} {op}": count for (provider, op), count in sorted(Counter(ran).items())}
    return {"kernels": counted, "said about placement": said}


@contextmanager
def stderr_into(file: IO[str]) -> Iterator[None]:
    """What the runtime's own code writes to stderr goes to a file meanwhile."""
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def overflow(setting: Setting) -> dict[str, Any]:
    """A graph whose fp16 half overflows on purpose: the vectors must be those of fp32."""
    import onnx
    from onnx import numpy_helper

    tokens = setting.tokens[:200]
    wanted = encode(setting.encoder, tokens, 16384)
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder, setting.card.name)
        shutil.copytree(setting.models / setting.card.name, copied)
        graph = onnx.load(str(copied / "fp16.onnx"))
        weights = max(
            (w for w in graph.graph.initializer if w.data_type == onnx.TensorProto.FLOAT16),
            key=lambda w: len(w.raw_data),
        )
        matrices = [
            w
            for w in graph.graph.initializer
            if w.data_type == onnx.TensorProto.FLOAT16 and w is not weights and len(w.dims) == 2
        ]
        broken = numpy_helper.to_array(matrices[-1]).copy()
        broken[:] = 65000
        matrices[-1].CopyFrom(numpy_helper.from_array(broken, matrices[-1].name))
        onnx.save_model(graph, str(copied / "fp16.onnx"))
        manifest = Artefact.open(Path(folder), setting.card)
        fp16 = manifest.graphs["fp16"].model_copy(update={"sha256": checksum(copied / "fp16.onnx")})
        encoder = OnnxEncoder(
            manifest.model_copy(update={"graphs": {**manifest.graphs, "fp16": fp16}}), setting.device
        )
        vectors = encode(encoder, tokens, 16384)
        return {
            "fell back to fp32": encoder.not_finite,
            "of": len(tokens),
            "worst cosine": float(cosines(vectors, wanted).min()),
        }
