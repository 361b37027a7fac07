"""Export a model to ONNX, once: the only place that imports torch, transformers and optimum.

Pooling and normalisation become part of the graph, so that one small vector a text leaves the device. Every
graph is compared with torch fp32 on real texts before it is installed.
"""

import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedsync.encoding.artefact import MANIFEST, Artefact, Graph, Precision, checksum
from embedsync.encoding.batching import padded, plan_batches
from embedsync.encoding.catalogue import ModelCard
from embedsync.encoding.onnx import OnnxSession
from embedsync.encoding.tokenizer import Tokenizer
from embedsync.errors import ModelError
from embedsync.records import Tokens, Vector
from embedsync.stdlib_texts import docstrings

if TYPE_CHECKING:
    import onnx

GATES: dict[Precision, float] = {"fp32": 0.99999, "fp16": 0.999, "int8": 0.98}
_WEIGHTS = "model.safetensors"
_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
_GATE_TEXTS = 256


def export(
    card: ModelCard, models_dir: Path, source: Path | None = None, precisions: tuple[Precision, ...] = ("fp32", "fp16"),
    report: Callable[[str], None] = lambda line: None,
) -> Artefact:  # fmt: skip
    """Export `card` into `models_dir/<name>`, replacing what is there only when everything passed.

    Raises ModelError when the weights are not the catalogue's or the fp32 graph fails its gate. Another graph
    that fails is left out, and `report` says why.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if card.remote_code:
        raise ModelError(
            "export", f"model {card.name!r}", "its repository asks to run code of its own, which embedsync never does",
            "Choose another model.",
        )  # fmt: skip
    models_dir.mkdir(parents=True, exist_ok=True)
    folder = source or locate(card)
    weights = verify(card, folder, report)
    with tempfile.TemporaryDirectory(prefix=f".{card.name}-", dir=models_dir) as made:
        artefact = _export_into(Path(made), card, folder, weights, precisions, report)
        final = models_dir / card.name
        shutil.rmtree(final, ignore_errors=True)
        os.rename(made, final)
        Path(made).mkdir()  # for TemporaryDirectory to remove
    return artefact.model_copy(update={"folder": final})


def locate(card: ModelCard) -> Path:
    """A folder with the model's files: an installed package's, else downloaded from the hub. Raises ModelError."""
    if card.package:
        try:
            return Path(import_module(card.package).get_model_path())
        except ImportError:
            pass
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(card.source, revision=card.revision or None, allow_patterns=[_WEIGHTS, *_FILES]))
    except ImportError as error:
        raise _missing(error) from error
    except Exception as error:  # the hub client raises whatever its transport raises
        raise ModelError(
            "download", f"model {card.name!r}", f"{card.source} could not be had: {error}",
            "Give a folder with its files: embedsync export NAME --from FOLDER.",
        ) from error  # fmt: skip


def verify(card: ModelCard, folder: Path, report: Callable[[str], None] = lambda line: None) -> str:
    """sha256 of the weights, after comparing every file the catalogue pins. Raises ModelError."""
    for name in (_WEIGHTS, "tokenizer.json", "config.json"):
        path = folder / name
        if not path.exists():
            raise ModelError(
                "export", f"model {card.name!r}", f"{folder} has no {name}", "Give a folder with the model's safetensors."
            )
        found, wanted = checksum(path), card.sha256.get(name)
        if wanted is None:
            report(f"{name}: not pinned in the catalogue; sha256 {found}")
        elif found != wanted:
            raise ModelError(
                "export", f"model {card.name!r}", f"the sha256 of {path} is {found}, the catalogue says {wanted}",
                "Get the file from its source again, or describe your own model in a catalogue file of its own.",
            )  # fmt: skip
    return checksum(folder / _WEIGHTS)


def _export_into(
    made: Path, card: ModelCard, folder: Path, weights: str, precisions: tuple[Precision, ...], report: Callable[[str], None]
) -> Artefact:
    shutil.copyfile(folder / "tokenizer.json", made / "tokenizer.json")
    config = json.loads((folder / "config.json").read_text())
    tokens = Tokenizer(made / "tokenizer.json", card.max_tokens, card.document_prefix).encode(gate_texts())
    report("reading the weights and encoding the gate's texts with torch fp32")
    model, reference = _reference(card, folder, tokens, config)
    report("tracing the graph")
    fused = _fused(model, config, made)
    graphs: dict[Precision, Graph] = {}
    for precision in precisions:
        started = time.perf_counter()
        report(f"building the {precision} graph")
        path = made / f"{precision}.onnx"
        _build(precision, fused, card, path)
        try:
            graph = _gate(path, tokens, reference, config.get("pad_token_id") or 0)
        except Exception as error:  # a graph the runtime refuses is as good as one that fails its gate
            if precision == "fp32":
                raise
            report(f"{precision}: NOT installed: the runtime refuses it: {error}")
            path.unlink()
            continue
        graph = graph.model_copy(update={"seconds": round(time.perf_counter() - started, 1)})
        if graph.worst_cosine >= GATES[precision]:
            graphs[precision] = graph
            report(f"{precision}: worst cosine {graph.worst_cosine:.6f}, {graph.megabytes:.0f} MB, installed")
            continue
        problem = f"the worst cosine against torch fp32 is {graph.worst_cosine:.6f}, under {GATES[precision]}"
        if precision == "fp32":
            raise ModelError(
                "export", f"the fp32 graph of model {card.name!r}", problem, "Check pooling and normalize in its card."
            )
        report(f"{precision}: NOT installed: {problem}")
        path.unlink()
    artefact = Artefact(
        card=card, weights_sha256=weights, tokenizer_sha256=checksum(made / "tokenizer.json"),
        pad_id=config.get("pad_token_id") or 0, graphs=graphs,
    )  # fmt: skip
    (made / MANIFEST).write_text(artefact.model_dump_json(indent=2, exclude={"folder"}))
    return artefact


def _reference(card: ModelCard, folder: Path, tokens: list[Tokens], config: dict[str, Any]) -> tuple[Any, Vector]:
    """The torch model, and the embeddings `[texts, dimension]` every graph is held against."""
    try:
        import torch
        from transformers import AutoModel
    except ImportError as error:
        raise _missing(error) from error
    # Eager attention: the fused operators of ONNX Runtime recognise its pattern, not that of SDPA.
    model = AutoModel.from_pretrained(
        str(folder), attn_implementation="eager", use_safetensors=True, local_files_only=True, trust_remote_code=False
    ).eval()
    vectors = np.empty((len(tokens), card.dimension), dtype=np.float32)
    with torch.inference_mode():
        for planned in plan_batches([len(text) for text in tokens], lambda: 2048):
            batch = planned.indices
            ids, mask = padded([tokens[i] for i in batch], config.get("pad_token_id") or 0)
            hidden = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).last_hidden_state
            kept = torch.from_numpy(mask).unsqueeze(-1).float()
            pooled = hidden[:, 0] if card.pooling == "cls" else (hidden * kept).sum(1) / kept.sum(1)
            vectors[batch] = (torch.nn.functional.normalize(pooled) if card.normalize else pooled).numpy()
    return model, vectors


def _fused(model: Any, config: dict[str, Any], work: Path) -> "onnx.ModelProto":
    """The traced encoder with attention, GELU and LayerNorm fused by ONNX Runtime's own optimiser."""
    import onnx
    from onnxruntime.transformers import optimizer
    from optimum.exporters.onnx import onnx_export_from_model

    with tempfile.TemporaryDirectory(dir=work) as traced, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's warnings are about values that are constant here
        onnx_export_from_model(model, traced, task="feature-extraction", library_name="transformers", do_validation=False)
        optimised = optimizer.optimize_model(
            str(Path(traced, "model.onnx")), "bert", num_heads=config["num_attention_heads"],
            hidden_size=config["hidden_size"], opt_level=0,
        )  # fmt: skip
    proto = optimised.model
    assert isinstance(proto, onnx.ModelProto)
    return proto


def _build(precision: Precision, fused: "onnx.ModelProto", card: ModelCard, path: Path) -> None:
    import onnx
    from onnxruntime.transformers import float16

    proto = onnx.ModelProto()
    proto.CopyFrom(fused)
    if precision == "fp16":
        # Shapes need not be inferred: the fused operators are unknown to onnx, and nothing here depends on them. LayerNorm
        # computes in fp32 on CUDA, and pooling stays fp32: it is added after the conversion.
        proto = float16.convert_float_to_float16(proto, keep_io_types=True, disable_shape_infer=True)
    _append_pooling(proto, card)
    onnx.save_model(proto, str(path))


def _append_pooling(proto: "onnx.ModelProto", card: ModelCard) -> None:
    """Replace the output `[batch, length, hidden]` by `sentence_embedding` `[batch, hidden]`, float32."""
    from onnx import TensorProto, helper, numpy_helper

    graph = proto.graph
    hidden = graph.output[0].name
    nodes, constants = [], []

    def constant(name: str, values: list[int]) -> str:
        constants.append(numpy_helper.from_array(np.array(values, dtype=np.int64), f"embedsync_{name}"))
        return f"embedsync_{name}"

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=f"embedsync_{output}", **attributes))
        return output

    if card.pooling == "cls":
        first = [constant("first", [0]), constant("second", [1]), constant("middle", [1])]
        pooled = node("Squeeze", [node("Slice", [hidden, *first], "cls"), constant("axis_1", [1])], "pooled")
    else:  # a matrix product with the mask sums the real tokens in one operation
        mask = node("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
        row = node("Unsqueeze", [mask, constant("axis_1", [1])], "mask_row")
        summed = node("Squeeze", [node("MatMul", [row, hidden], "summed_row"), "embedsync_axis_1"], "summed")
        count = node("ReduceSum", [mask, "embedsync_axis_1"], "count", keepdims=1)
        pooled = node("Div", [summed, count], "pooled")
    if card.normalize:
        length = node("ReduceL2", [pooled, "embedsync_axis_1"], "length", keepdims=1)
        node("Div", [pooled, length], "sentence_embedding")
    else:
        node("Identity", [pooled], "sentence_embedding")
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", card.dimension]))


def _gate(path: Path, tokens: list[Tokens], reference: Vector, pad_id: int) -> Graph:
    """Measure a graph against the reference, in batches and one by one."""
    session = OnnxSession(path, pad_id, device="cpu")
    batched = np.empty_like(reference)
    for planned in plan_batches([len(text) for text in tokens], lambda: 2048):
        batched[planned.indices] = session.run([tokens[i] for i in planned.indices])
    some = range(0, len(tokens), 8)
    single = np.concatenate([session.run([tokens[i]]) for i in some])
    against = _cosines(batched, reference)
    return Graph(
        sha256=checksum(path), megabytes=path.stat().st_size / 1e6, worst_cosine=float(against.min()),
        mean_cosine=float(against.mean()), worst_batched=float(_cosines(batched[list(some)], single).min()),
    )  # fmt: skip


def _cosines(a: Vector, b: Vector) -> Vector:
    """Cosine of each row of `a` with that of `b`; 0 where a row is not finite, so that no gate lets it pass."""
    cosine: Vector = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return np.nan_to_num(cosine, nan=0.0, posinf=0.0, neginf=0.0)


def gate_texts(count: int = _GATE_TEXTS) -> list[str]:
    """`count` real texts of all lengths: docstrings of the standard library, evenly chosen."""
    found = [text for _, text in docstrings()]
    return found[:: max(1, len(found) // count)][:count]


def _missing(error: ImportError) -> ModelError:
    return ModelError("export", "a model", f"package {error.name} is not installed", "Run: pip install 'embedsync[cpu,export]'")
