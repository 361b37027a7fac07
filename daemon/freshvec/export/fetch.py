"""A model set up without torch: the ONNX file that its repository publishes, with pooling added.

What makes it trustworthy: every file is the one that the card pins by sha256, and the finished graph makes
the stored vectors of the stored texts, which torch made from the weights that the card pins. So a fetched
model and an exported one have the same fingerprint.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from freshvec.encoding.tokenizer import Tokenizer
from freshvec.errors import ModelError
from freshvec.export import card_check, gate, graph, hub
from freshvec.export.flops import flops_per_token
from freshvec.export.installing import installing
from freshvec.models.artefact import MANIFEST, Artefact, Graph, checksum
from freshvec.models.catalogue import ModelCard
from freshvec.models.reference import Reference

if TYPE_CHECKING:
    import onnx

_WEIGHTS = "model.safetensors"
_NOT_MADE = "only an export makes it; this model was fetched"


def fetch(
    card: ModelCard,
    models_dir: Path,
    source: Path | None = None,
    catalogue_dirs: Iterable[Path] = (),
    report: Callable[[str], None] = lambda line: None,
) -> Artefact:
    """Install the fp32 graph of `card` into `models_dir/<name>`, from the hub or the folder `source`.

    Raises ModelError when the card or the stored vectors are not enough to tell that it is the model, when a
    file is another one, and when the finished graph makes other vectors.
    """
    reference = _checked(card, catalogue_dirs)
    with (
        installing(models_dir, card.name) as made,
        tempfile.TemporaryDirectory(dir=made) as scratch,
    ):
        files = _gather(card, source, Path(scratch), report)
        card_check.check(card, Path(scratch))
        config = json.loads(files["config.json"].read_text(encoding="utf-8"))
        pad_id = int(config.get("pad_token_id") or 0)
        shutil.copyfile(files["tokenizer.json"], made / "tokenizer.json")
        report("adding pooling")
        flops = _finish(card, files["model.onnx"], made / "fp32.onnx")
        report(f"comparing it with {len(reference.texts)} stored vectors")
        artefact = Artefact(
            card=card,
            weights_sha256=reference.weights_sha256,
            tokenizer_sha256=checksum(made / "tokenizer.json"),
            pad_id=pad_id,
            flops_per_token=flops,
            graphs={"fp32": _passed(card, made, reference, pad_id)},
            rejected={"fp16": _NOT_MADE, "int8": _NOT_MADE},
        )
        (made / MANIFEST).write_text(artefact.model_dump_json(indent=2, exclude={"folder"}), encoding="utf-8")
    return artefact.model_copy(update={"folder": models_dir / card.name})


def _checked(card: ModelCard, catalogue_dirs: Iterable[Path]) -> Reference:
    """The stored vectors, once everything is there by which the model can be told. Raises ModelError."""
    reference = Reference.find(card, catalogue_dirs)
    lacking = [f"the sha256 of {name}" for name in (_WEIGHTS, "tokenizer.json") if name not in card.sha256]
    if card.onnx is None:
        lacking.append("[onnx], with the sha256 of the file that is published")
    problem = f"its card lacks {', '.join(lacking)}" if lacking else ""
    if reference is None:
        problem = problem or f"there are no stored vectors, {card.name}.vectors.json beside its card"
    elif reference.weights_sha256 != card.sha256.get(_WEIGHTS):
        problem = problem or "its stored vectors are of other weights than the card pins"
    if problem or reference is None:
        remedy = f"`freshvec export {card.name}` makes it from the weights, with torch, here or elsewhere."
        raise ModelError("fetch", f"model {card.name!r}", problem, remedy)
    return reference


def _gather(
    card: ModelCard, source: Path | None, folder: Path, report: Callable[[str], None]
) -> dict[str, Path]:
    """Every file, copied or downloaded into `folder` and the one that is pinned. Raises ModelError."""
    assert card.onnx is not None
    wanted = {"config.json": "config.json", "tokenizer.json": "tokenizer.json", "model.onnx": card.onnx.file}
    pinned = card.sha256 | {"model.onnx": card.onnx.sha256}
    files = {}
    for name, path in wanted.items():
        files[name] = folder / name
        if source is None:
            report(f"downloading {path} from {hub.endpoint()}")
            actual = hub.download(card, path, files[name])
        else:
            actual = _copy(card, source / path, files[name])
        if name in pinned and actual != pinned[name]:
            raise ModelError(
                "fetch",
                f"model {card.name!r}",
                f"the sha256 of {path} is {actual}, the catalogue says {pinned[name]}",
                "Get it from another place (HF_ENDPOINT, --from FOLDER).",
            )
    return files


def _copy(card: ModelCard, path: Path, to: Path) -> str:
    try:
        shutil.copyfile(path, to)
    except OSError as error:
        problem = f"{path}: {error.strerror}"
        raise ModelError(
            "fetch", f"model {card.name!r}", problem, "Name the folder with its files."
        ) from error
    return checksum(to)


def _finish(card: ModelCard, published: Path, to: Path) -> int:
    """Add pooling and normalisation, and save it; the floating-point operations per token."""
    try:
        import onnx
    except ImportError as error:
        problem, remedy = "package onnx is not installed", "Run: pip install 'freshvec[cpu,fetch]'"
        raise ModelError("fetch", "a model", problem, remedy) from error
    try:
        proto = onnx.load(str(published))
        _keep_hidden(proto)
        graph.append_pooling(proto, card)
        graph.save(proto, to, most_within=0)
    except Exception as error:  # whatever a graph of another kind makes onnx say
        raise _unfit(card, f"pooling cannot be added to the published graph: {error}") from error
    return flops_per_token(proto)


def _keep_hidden(proto: "onnx.ModelProto") -> None:
    """Leave one output, the one of every token: `[batch, length, hidden]`. Raises ValueError."""
    tokens = [output for output in proto.graph.output if len(output.type.tensor_type.shape.dim) == 3]
    if not tokens:
        names = ", ".join(output.name for output in proto.graph.output)
        raise ValueError(f"none of its outputs is one of every token: {names}")
    hidden = tokens[0]
    del proto.graph.output[:]
    proto.graph.output.append(hidden)


def _passed(card: ModelCard, made: Path, reference: Reference, pad_id: int) -> Graph:
    """The graph, once it makes the stored vectors. Raises ModelError."""
    tokenizer = Tokenizer(made / "tokenizer.json", card.max_tokens, card.document_prefix)
    try:
        tokens = tokenizer.encode(list(reference.texts))
        measured = gate.measure(made / "fp32.onnx", tokens, reference.matrix(), pad_id)
    except Exception as error:  # a graph the runtime refuses counts as one that fails its gate
        raise _unfit(card, f"the runtime refuses the graph: {error}") from error
    if not measured.worst_cosine >= gate.GATES["fp32"]:
        cosine = f"{measured.worst_cosine:.6f}, under {gate.GATES['fp32']}"
        raise _unfit(card, f"its worst cosine against the stored vectors is {cosine}")
    return measured


def _unfit(card: ModelCard, problem: str) -> ModelError:
    remedy = f"Check its card, or run `freshvec export {card.name}` where torch is installed."
    return ModelError("fetch", f"model {card.name!r}", problem, remedy)
