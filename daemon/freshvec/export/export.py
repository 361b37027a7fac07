"""Export a model to ONNX: check its weights, build its graphs, compare them with torch fp32, install them.

torch, transformers and optimum are imported here and in what this calls, and nowhere else.
"""

import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freshvec.encoding import quick_tokens
from freshvec.encoding.tokenizer import Tokenizer
from freshvec.errors import ModelError
from freshvec.export import card_check, gate, graph, int8, packing
from freshvec.export.flops import flops_per_token
from freshvec.export.installing import installing
from freshvec.models.artefact import MANIFEST, Artefact, Graph, Precision, checksum, data_of
from freshvec.models.catalogue import ModelCard
from freshvec.records import Tokens, Vector

if TYPE_CHECKING:
    import onnx

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
    texts: Sequence[str] | None = None,
) -> Artefact:
    """Export `card` into `models_dir/<name>`, replacing what is there once the fp32 graph passed its gate.

    `source` is a folder with the model's files; without it, `locate` finds them. `gates` are the least
    cosines against torch fp32 on `texts` (default: `gate.texts()`); `report` is told each step as it begins.
    A graph that fails its gate is left out, and the manifest says why.

    Raises ModelError when the weights cannot be found or are not the catalogue's, when the card does not fit
    them, when a package is missing, and when the fp32 graph fails its gate.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    report("looking for the weights")
    folder = source or locate(card)
    weights = verify(card, folder, report)
    with installing(models_dir, card.name) as made:
        making = _Export(card, folder, made, gates, report)
        artefact = making.run(precisions, weights, gate.texts() if texts is None else texts)
    return artefact.model_copy(update={"folder": models_dir / card.name})


def locate(card: ModelCard) -> Path:
    """A folder with the model's files: the card's own, an installed package's, or a download.

    Raises ModelError.
    """
    if Path(card.source).is_absolute():
        return Path(card.source)
    if card.package:
        try:
            return Path(import_module(card.package).get_model_path())
        except ImportError:
            pass
    return download(card.source, card.revision)


def download(repository: str, revision: str, more: Sequence[str] = ()) -> Path:
    """A folder with what is needed of a repository on the hub, and `more` of its files. Raises ModelError."""
    try:
        from huggingface_hub import snapshot_download

        wanted = [_WEIGHTS, *_FILES, *more]
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=wanted))
    except ImportError as error:
        raise _missing(error) from error
    except Exception as error:  # the hub client raises whatever its transport raises
        raise ModelError(
            "download",
            f"model {repository}",
            f"it could not be downloaded: {error}",
            "Give a folder with its files: freshvec export NAME --from FOLDER.",
        ) from error


def verify(card: ModelCard, folder: Path, report: Callable[[str], None] = lambda line: None) -> str:
    """sha256 of the weights, once every file is the one that the catalogue pins and the card fits them.

    Raises ModelError for a file that is missing or another one, and for a card that does not fit.
    """
    for name in (_WEIGHTS, "tokenizer.json", "config.json"):
        path = folder / name
        if not path.exists():
            raise ModelError(
                "export",
                f"model {card.name!r}",
                f"{folder} has no {name}",
                "Give a folder with the model's safetensors.",
            )
        actual, pinned = checksum(path), card.sha256.get(name)
        if pinned is None:
            report(f"{name}: not pinned in the catalogue; sha256 {actual}")
        elif actual != pinned:
            raise ModelError(
                "export",
                f"model {card.name!r}",
                f"the sha256 of {path} is {actual}, the catalogue says {pinned}",
                "Get the file from its source again, or describe your own model in a file of its own.",
            )
    card_check.check(card, folder)
    return checksum(folder / _WEIGHTS)


class _Rejected(Exception):
    """A graph is not installed; the message says why."""


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

    def run(self, precisions: tuple[Precision, ...], weights: str, texts: Sequence[str]) -> Artefact:
        """Build and compare the graphs, and write the manifest; `weights` is their sha256."""
        shutil.copyfile(self._folder / "tokenizer.json", self._made / "tokenizer.json")
        tokenizer = Tokenizer(
            self._made / "tokenizer.json", self._card.max_tokens, self._card.document_prefix
        )
        tokens = tokenizer.encode(list(texts))
        self._report(f"encoding {len(tokens)} texts with torch fp32")
        model = load_torch(self._folder)
        expected = gate.reference(model, self._card, tokens, self._pad_id)
        graphs: dict[Precision, Graph] = {}
        rejected: dict[Precision, str] = {}
        with tempfile.TemporaryDirectory(dir=self._made) as scratch:
            self._report("tracing the graph")
            traced = graph.trace(model, Path(scratch))
            del model
            # fp32 first: the others are timed beside it, and without it nothing is installed.
            for precision in sorted({"fp32", *precisions}, key=PRECISIONS.index):
                self._report(f"building the {precision} graph and comparing it")
                try:
                    graphs[precision] = self._pass(precision, traced, tokens, expected)
                except _Rejected as refusal:
                    rejected[precision] = str(refusal)
        artefact = Artefact(
            card=self._card,
            weights_sha256=weights,
            tokenizer_sha256=checksum(self._made / "tokenizer.json"),
            pad_id=self._pad_id,
            flops_per_token=self._flops,
            quick_tokens=self._quick_tokens(texts),
            graphs=graphs,
            rejected=rejected,
        )
        (self._made / MANIFEST).write_text(
            artefact.model_dump_json(indent=2, exclude={"folder"}), encoding="utf-8"
        )
        return artefact

    def _quick_tokens(self, texts: Sequence[str]) -> str | None:
        """The package that tokenises more quickly, where it is installed and its ids are equal."""
        package = quick_tokens.installed()
        if package is None:
            return None
        self._report(f"comparing the tokens of {package}")
        seen = itertools.chain(texts, quick_tokens.proof_texts())
        problem = quick_tokens.difference(self._made / "tokenizer.json", self._card.max_tokens, seen)
        if problem:
            self._report(f"tokenizers makes the tokens, not {package}: {problem}")
        return None if problem else package

    def _pass(self, precision: Precision, traced: Path, tokens: list[Tokens], expected: Vector) -> Graph:
        """A graph that passed its gate. Raises _Rejected, or ModelError for fp32, that says why not."""
        began = time.perf_counter()
        try:
            made = self._build(precision, traced, tokens, expected)
        except OSError as error:  # no room on the disk, most likely: the graph is not at fault
            subject, remedy = (
                f"the {precision} graph of model {self._card.name!r}",
                "See to its folder's disk.",
            )
            raise ModelError("write", subject, f"{self._made}: {error.strerror}", remedy) from error
        except Exception as error:  # a graph the runtime refuses counts as one that fails its gate
            raise self._rejected(precision, f"the runtime refuses it: {error}") from error
        least = self._gates.get(precision, gate.GATES[precision])
        if made.worst_cosine < least:
            problem = f"its worst cosine against torch fp32 is {made.worst_cosine:.6f}, under {least}"
            raise self._rejected(precision, problem)
        return made.model_copy(update={"seconds": round(time.perf_counter() - began, 1)})

    def _build(self, precision: Precision, traced: Path, tokens: list[Tokens], expected: Vector) -> Graph:
        """Build one graph and compare its embeddings of `tokens` with `expected`, `[texts, dimension]`."""
        path = self._made / f"{precision}.onnx"
        proto = graph.fuse(traced, self._config, precision)
        if precision == "fp32":
            self._flops = flops_per_token(proto)
        elif precision == "fp16":
            proto = graph.halved(proto)
        elif precision == "int8":
            int8.quantise(proto)
        graph.append_pooling(proto, self._card)
        if precision == "fp16":  # a GPU has its own copy in any case
            graph.save(proto, path)
        else:
            graph.save(proto, path, most_within=0)
        # The time of an fp16 graph on a CPU says nothing: that graph is for GPUs.
        beside = self._made / "fp32.onnx" if precision == "int8" else None
        measured = gate.measure(path, tokens, expected, self._pad_id, beside)
        return self._packed(proto, path, measured) if precision == "fp16" else measured

    def _packed(self, proto: "onnx.ModelProto", path: Path, measured: Graph) -> Graph:
        """The graph for GPUs beside the padded one at `path`, where it can be made of it.

        Only a GPU runs it, and there it is compared with the padded one before it is used.
        """
        try:
            packed = packing.packed(proto)
        except Exception as error:  # a model of another architecture runs padded
            self._report(f"batches stay padded on a GPU: {error}")
            return measured
        if packed is None:
            self._report("batches stay padded on a GPU: its attention is of another kind")
            return measured
        without_padding = path.with_suffix(".packed.onnx")
        graph.save(packed, without_padding)
        return measured.model_copy(update={"packed_sha256": checksum(without_padding)})

    def _rejected(self, precision: Precision, problem: str) -> Exception:
        """The error for a graph that is not installed; its files are removed. Without fp32 all fails."""
        path = self._made / f"{precision}.onnx"
        for part in (path, data_of(path)):
            part.unlink(missing_ok=True)
        if precision != "fp32":
            return _Rejected(problem)
        return ModelError(
            "export",
            f"the fp32 graph of model {self._card.name!r}",
            problem,
            "Check pooling and normalize in its card.",
        )


def load_torch(folder: Path) -> Any:
    """The torch encoder of a folder, in fp32, from safetensors alone. Raises ModelError."""
    try:
        from transformers import AutoModel
    except ImportError as error:
        raise _missing(error) from error
    # Eager attention: ONNX Runtime's fusion recognises its pattern, not that of SDPA.
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
        "Run: pip install 'freshvec[cpu,export]'; or, without torch, freshvec fetch.",
    )
