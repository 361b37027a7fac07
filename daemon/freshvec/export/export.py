"""Export a model to ONNX, once: weights checked, graphs built, held against torch fp32 on real texts, and installed.

torch, transformers and optimum are imported here and in what this calls, and nowhere else.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from freshvec.encoding.tokenizer import Tokenizer
from freshvec.errors import ModelError
from freshvec.export import card_check, gate, graph, int8
from freshvec.export.flops import flops_per_token
from freshvec.models.artefact import MANIFEST, Artefact, Graph, Precision, checksum, data_of
from freshvec.models.catalogue import ModelCard

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
_WEIGHTS = "model.safetensors"
_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    *card_check.FILES,
)


def export(
    card: ModelCard,
    models_dir: Path,
    source: Path | None = None,
    precisions: tuple[Precision, ...] = PRECISIONS,
    gates: Mapping[Precision, float] = gate.GATES,
    report: Callable[[str], None] = lambda line: None,
) -> Artefact:
    """Export `card` into `models_dir/<name>`, replacing what is there only when everything passed.

    `gates` are the least cosines; `report` is told each step as it begins. A graph that fails its gate is left out and
    the manifest says why. Raises ModelError when the weights are not the catalogue's or the fp32 graph fails its gate.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    if card.remote_code:
        raise ModelError(
            "export",
            f"model {card.name!r}",
            "its repository asks to run code of its own, which freshvec never does",
            "Choose another model.",
        )
    models_dir.mkdir(parents=True, exist_ok=True)
    report("looking for the weights")
    folder = source or locate(card)
    weights = verify(card, folder, report)
    with tempfile.TemporaryDirectory(prefix=f".{card.name}-", dir=models_dir) as made:
        artefact = _Export(card, folder, Path(made), gates, report).run(precisions, weights)
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

        return Path(
            snapshot_download(card.source, revision=card.revision or None, allow_patterns=[_WEIGHTS, *_FILES])
        )
    except ImportError as error:
        raise _missing(error) from error
    except Exception as error:  # the hub client raises whatever its transport raises
        raise ModelError(
            "download",
            f"model {card.name!r}",
            f"{card.source} could not be had: {error}",
            "Give a folder with its files: freshvec export NAME --from FOLDER.",
        ) from error


def verify(card: ModelCard, folder: Path, report: Callable[[str], None] = lambda line: None) -> str:
    """sha256 of the weights, after comparing every file the catalogue pins, and the card with them. Raises ModelError."""
    for name in (_WEIGHTS, "tokenizer.json", "config.json"):
        path = folder / name
        if not path.exists():
            raise ModelError(
                "export",
                f"model {card.name!r}",
                f"{folder} has no {name}",
                "Give a folder with the model's safetensors.",
            )
        found, wanted = checksum(path), card.sha256.get(name)
        if wanted is None:
            report(f"{name}: not pinned in the catalogue; sha256 {found}")
        elif found != wanted:
            raise ModelError(
                "export",
                f"model {card.name!r}",
                f"the sha256 of {path} is {found}, the catalogue says {wanted}",
                "Get the file from its source again, or describe your own model in a catalogue file of its own.",
            )
    card_check.check(card, folder)
    return checksum(folder / _WEIGHTS)


class _Export:
    """One export into the folder `made`."""

    def __init__(
        self,
        card: ModelCard,
        folder: Path,
        made: Path,
        gates: Mapping[Precision, float],
        report: Callable[[str], None],
    ) -> None:
        self._card = card
        self._folder = folder
        self._made = made
        self._gates = gates
        self._report = report
        self._config = json.loads((folder / "config.json").read_text())
        self._pad_id = int(self._config.get("pad_token_id") or 0)
        self._flops = 0

    def run(self, precisions: tuple[Precision, ...], weights: str) -> Artefact:
        shutil.copyfile(self._folder / "tokenizer.json", self._made / "tokenizer.json")
        tokenizer = Tokenizer(
            self._made / "tokenizer.json", self._card.max_tokens, self._card.document_prefix
        )
        tokens = tokenizer.encode(gate.texts())
        self._report(f"encoding {len(tokens)} texts with torch fp32")
        model = load_torch(self._folder)
        expected = gate.reference(model, self._card, tokens, self._pad_id)
        graphs: dict[Precision, Graph] = {}
        rejected: dict[Precision, str] = {}
        with tempfile.TemporaryDirectory(dir=self._made) as scratch:
            self._report("tracing the graph")
            traced = graph.trace(model, Path(scratch))
            del model
            # fp32 first: it is what the others are timed beside, and without it nothing is installed.
            for precision in sorted({"fp32", *precisions}, key=PRECISIONS.index):
                self._report(f"building the {precision} graph and comparing it")
                began = time.perf_counter()
                try:
                    made = self._build(precision, traced, tokens, expected)
                except (
                    Exception
                ) as error:  # a graph the runtime refuses is as good as one that fails its gate
                    self._reject(precision, f"the runtime refuses it: {error}", rejected)
                    continue
                made = made.model_copy(update={"seconds": round(time.perf_counter() - began, 1)})
                least = self._gates.get(precision, gate.GATES[precision])
                if made.worst_cosine >= least:
                    graphs[precision] = made
                else:
                    problem = f"its worst cosine against torch fp32 is {made.worst_cosine:.6f}, under {least}"
                    self._reject(precision, problem, rejected)
        artefact = Artefact(
            card=self._card,
            weights_sha256=weights,
            tokenizer_sha256=checksum(self._made / "tokenizer.json"),
            pad_id=self._pad_id,
            flops_per_token=self._flops,
            graphs=graphs,
            rejected=rejected,
        )
        (self._made / MANIFEST).write_text(artefact.model_dump_json(indent=2, exclude={"folder"}))
        return artefact

    def _build(self, precision: Precision, traced: Path, tokens: Any, expected: Any) -> Graph:
        path = self._made / f"{precision}.onnx"
        proto = graph.fuse(traced, self._config, precision)
        if precision == "fp32":
            self._flops = flops_per_token(proto)
        elif precision == "fp16":
            proto = graph.halved(proto)
        elif precision == "int8":
            int8.quantise(proto)
        graph.append_pooling(proto, self._card)
        graph.save(proto, path)
        # The time of an fp16 graph on a CPU says nothing: it is there for GPUs.
        beside = self._made / "fp32.onnx" if precision == "int8" else None
        return gate.measure(path, tokens, expected, self._pad_id, beside)

    def _reject(self, precision: Precision, problem: str, rejected: dict[Precision, str]) -> None:
        if precision == "fp32":
            raise ModelError(
                "export",
                f"the fp32 graph of model {self._card.name!r}",
                problem,
                "Check pooling and normalize in its card.",
            )
        rejected[precision] = problem
        path = self._made / f"{precision}.onnx"
        for part in (path, data_of(path)):
            part.unlink(missing_ok=True)


def load_torch(folder: Path) -> Any:
    """The torch encoder of a folder with safetensors, in fp32, never running code of the folder's. Raises ModelError."""
    try:
        from transformers import AutoModel
    except ImportError as error:
        raise _missing(error) from error
    # Eager attention: the fused operators of ONNX Runtime recognise its pattern, not that of SDPA.
    return AutoModel.from_pretrained(
        str(folder),
        attn_implementation="eager",
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
    ).eval()


def _missing(error: ImportError) -> ModelError:
    return ModelError(
        "export",
        "a model",
        f"package {error.name} is not installed",
        "Run: pip install 'freshvec[cpu,export]'",
    )
