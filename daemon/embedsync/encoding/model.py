"""A model ready to encode: tokenizer and session together."""

from pathlib import Path

from loguru import logger

from embedsync.encoding.artefact import Artefact, Precision
from embedsync.encoding.catalogue import ModelCard
from embedsync.encoding.onnx import OnnxSession, choose_device
from embedsync.encoding.tokenizer import Tokenizer
from embedsync.errors import ModelError
from embedsync.records import Tokens, Vector


class OnnxEncoder:
    """An exported model on a device. See `records.Encoder`."""

    def __init__(self, artefact: Artefact, device: str = "auto", threads: int | None = None) -> None:
        card = artefact.card
        self.card = card
        self.dimension = card.dimension
        self.max_tokens = card.max_tokens
        self._pad_id = artefact.pad_id
        self._documents = Tokenizer(artefact.tokenizer_path, card.max_tokens, card.document_prefix)
        self._queries = Tokenizer(artefact.tokenizer_path, card.max_tokens, card.query_prefix)
        self._session = _open(artefact, device, threads)
        self.device = self._session.device
        self.fingerprint = artefact.fingerprint("fp32")

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        return self._documents.encode(texts)

    def encode(self, batch: list[Tokens]) -> Vector:
        return self._session.run(batch)

    def encode_query(self, text: str) -> Vector:
        """The embedding `[dimension]` of a search text, with the model's query prefix."""
        vector: Vector = self._session.run(self._queries.encode([text]))[0]
        return vector


def _open(artefact: Artefact, wanted: str, threads: int | None) -> OnnxSession:
    """The session on the wanted device. `auto` falls back to the CPU with one warning that says why."""
    device = choose_device(wanted)
    # The fp16 graph is slower than fp32 on a CPU, so it is never the fallback.
    precision: Precision = "fp16" if device != "cpu" and "fp16" in artefact.graphs else "fp32"
    if device != "cpu":
        session = OnnxSession(artefact.path(precision), artefact.pad_id, device, threads)
        if session.device != "cpu":
            return session
        problem = "onnxruntime could not start CUDA: a driver, CUDA or cuDNN library is missing or of another version"
        if wanted != "auto":
            raise ModelError("use", f"device {wanted!r}", problem, "Run: pip install 'onnxruntime-gpu[cuda,cudnn]'.")
        logger.warning("encoding on the CPU: {}", problem)
    return OnnxSession(artefact.path("fp32"), artefact.pad_id, "cpu", threads)


def load(artefact_dir: Path, card: ModelCard, device: str, threads: int | None) -> OnnxEncoder:
    """The installed model of `card`. Raises ModelError."""
    return OnnxEncoder(Artefact.open(artefact_dir, card), device, threads)
