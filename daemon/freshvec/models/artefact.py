"""An exported model on disk: its graphs, its tokenizer, and a manifest that says what they are."""

import hashlib
import json
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from freshvec.errors import UnusableModelError
from freshvec.models.catalogue import ModelCard

MANIFEST = "manifest.json"
Precision = Literal["fp32", "fp16", "bf16", "int8"]  # bf16 has no graph of its own: it runs the fp32 one


class Graph(BaseModel):
    """One ONNX graph, and how near its embeddings are to those of torch fp32."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    packed_sha256: str | None = None  # of the same graph without padding between its layers, for GPUs
    data_sha256: str | None = None  # of the weights, where they lie in a file of their own
    megabytes: float
    worst_cosine: float
    mean_cosine: float
    worst_batched: float = 1.0  # cosine of a text in a batch against the same text alone
    speed: float = 1.0  # times as fast as the fp32 graph on the CPU it was exported on
    seconds: float = 0.0  # to build and to compare


class Artefact(BaseModel):
    """The manifest of an exported model."""

    model_config = ConfigDict(frozen=True)

    card: ModelCard
    weights_sha256: str
    tokenizer_sha256: str
    pad_id: int
    flops_per_token: int = 0  # of the weight matrices; 0: exported before they were counted
    graphs: dict[Precision, Graph]
    quick_tokens: str | None = None  # the package and its version that was proved to make the same tokens
    rejected: dict[Precision, str] = {}  # why a graph failed its gate and is not installed
    folder: Path = Path()

    @classmethod
    def open(cls, models_dir: Path, card: ModelCard) -> Self:
        """The exported model of that card. Raises UnusableModelError where there is none, or another."""
        folder = models_dir / card.name
        remedy = f"Run `{card.command}`."
        try:
            manifest = cls.model_validate_json((folder / MANIFEST).read_bytes())
        except FileNotFoundError:
            raise UnusableModelError(
                "load", f"model {card.name!r}", f"it is not exported to {models_dir}", remedy
            ) from None
        except PermissionError as error:
            problem = f"this user may not read {error.filename}"
            remedy = f"As its owner or root: chmod -R a+rX {models_dir}"
            raise UnusableModelError("load", f"model {card.name!r}", problem, remedy) from error
        except (OSError, ValidationError) as error:
            raise UnusableModelError(
                "load", f"model {card.name!r}", f"its manifest is unusable: {error}", remedy
            ) from error
        if _meaning(manifest.card) != _meaning(card):
            raise UnusableModelError(
                "load", f"model {card.name!r}", "its description has changed since it was exported", remedy
            )
        return manifest.model_copy(update={"folder": folder, "card": card})

    def fingerprint(self, precision: Precision, dimension: int | None = None) -> bytes:
        """16 bytes, equal where vectors are comparable: fp32 and fp16 are one class, bf16 and int8 others.
        Those that are cut to a dimension are classes of their own."""
        scheme = {"int8": "by row", "bf16": "bf16"}.get(precision, False)
        parts = [*_meaning(self.card), self.weights_sha256, self.tokenizer_sha256, scheme]
        whole = hashlib.sha256(json.dumps(parts).encode()).digest()[:16]
        return whole if dimension in (None, self.card.dimension) else of_cut(whole, dimension)

    def classes(self) -> dict[bytes, Precision]:
        """The fingerprint of each class of vectors, and the first precision that makes such."""
        dimensions = (self.card.dimension, *self.card.matryoshka)
        precisions: tuple[Precision, ...] = ("int8", "bf16", "fp32")
        return {self.fingerprint(one, cut): one for cut in dimensions for one in precisions}

    def path(self, precision: Precision) -> Path:
        """The graph's file, its checksum checked. Raises UnusableModelError when it is missing or damaged."""
        command = self.card.command if precision == "fp32" else f"freshvec export {self.card.name}"
        remedy = f"Run `{command}` again."
        subject = f"the {precision} graph of model {self.card.name!r}"
        if precision not in self.graphs:
            raise UnusableModelError(
                "load",
                subject,
                f"it is not installed: {self.rejected.get(precision, 'not exported')}",
                remedy,
            )
        path = self.folder / f"{precision}.onnx"
        graph = self.graphs[precision]
        for part, wanted in ((path, graph.sha256), (data_of(path), graph.data_sha256)):
            if wanted is not None and (not part.exists() or checksum(part) != wanted):
                raise UnusableModelError(
                    "load", subject, f"{part} is missing or not the file that was exported", remedy
                )
        return path

    def packed_path(self, precision: Precision) -> Path | None:
        """The file of the graph without padding; None where there is none, or another than was exported."""
        wanted = self.graphs[precision].packed_sha256
        path = self.folder / f"{precision}.packed.onnx"
        return path if wanted is not None and path.exists() and checksum(path) == wanted else None

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer's file, its checksum checked. Raises UnusableModelError where it is not whole."""
        path = self.folder / "tokenizer.json"
        if not path.exists() or checksum(path) != self.tokenizer_sha256:
            raise UnusableModelError(
                "load",
                f"the tokenizer of model {self.card.name!r}",
                f"{path} is missing or not the file that was exported",
                f"Run `{self.card.command}` again.",
            )
        return path


def of_cut(fingerprint: bytes, dimension: int) -> bytes:
    """The fingerprint of vectors that are cut."""
    return hashlib.sha256(fingerprint + f" cut to {dimension}".encode()).digest()[:16]


def _meaning(card: ModelCard) -> list[object]:
    """The parts of a card that decide what a vector is."""
    return [card.name, card.dimension, card.max_tokens, card.pooling, card.normalize, card.document_prefix]


def data_of(graph: Path) -> Path:
    """The file beside a graph that holds its weights, where they are not in it."""
    return graph.with_name(f"{graph.name}.data")


def checksum(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
