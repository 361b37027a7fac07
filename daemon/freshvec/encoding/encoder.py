"""A model ready to encode: tokenizer and session together."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from loguru import logger

from freshvec.encoding import openvino_session, providers
from freshvec.encoding.cosine import cosines
from freshvec.encoding.machine import cpu_limit
from freshvec.encoding.openvino_session import OpenVinoSession
from freshvec.encoding.session import OnnxSession, Session, out_of_memory
from freshvec.encoding.tokenizer import Tokenizer
from freshvec.encoding.tokenizer_pool import TokenizerPool, pool_processes
from freshvec.errors import DeviceError, EncodingError, ModelError
from freshvec.models.artefact import Artefact, Precision
from freshvec.records import OutOfMemoryError, Tokens, Vector

_SAME = 0.9999  # cosine at least of a text's vectors by two graphs of one precision


class OnnxEncoder:
    """An exported model on a device. See `records.Encoder`."""

    def __init__(
        self,
        artefact: Artefact,
        device: str = "auto",
        threads: int | None = None,
        memory_limit: int | None = None,
        precision: Precision | None = None,
        *,
        is_quick: bool = False,
    ) -> None:
        """`threads`: of the CPU, None for every core the process may use; `memory_limit`: bytes of a GPU.
        `precision`: None for fp16 on a GPU and fp32 on a CPU. `is_quick`: nanotoken may make the tokens.

        Raises ModelError for the model's files, DeviceError for a device that cannot be used.
        """
        card = artefact.card
        self.card = card
        self.dimension = card.dimension
        self.max_tokens = card.max_tokens
        self.not_finite = 0  # vectors that fp16 could not hold and fp32 could
        self._artefact = artefact
        self._threads = threads
        self._memory_limit = memory_limit
        self._is_quick = is_quick
        path = artefact.tokenizer_path
        self._queries = Tokenizer(path, card.max_tokens, card.query_prefix, is_quick=is_quick)
        session, self.precision = self._start(device, precision)
        self.session: Session | None = session  # None where it could not be loaded again
        self._exact: Session | None = None
        self._opening = threading.Lock()  # of that
        self._lanes = threading.Condition()
        self._under_way = 0  # batches
        self.device = session.device
        self.documents = self._tokenizer(threads or cpu_limit())
        self.fingerprint = artefact.fingerprint(self.precision)

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        """One entry per document text, with the model's document prefix."""
        return self.documents.encode(texts)

    def tokenize_queries(self, texts: list[str]) -> list[Tokens]:
        """One entry per search text, with the model's query prefix."""
        return self._queries.encode(texts)

    def encode(self, batch: list[Tokens]) -> Vector:
        """Embeddings, float32 `[len(batch), dimension]`, in order; what is not finite is tried once in fp32.

        Raises OutOfMemoryError, and EncodingError for values that are not finite in fp32 either; a retryable
        one where a graph cannot be loaded: that of fp32, or the model's own after `rebuild` has failed.
        """
        with self._lane():
            return self._finite(batch)

    def _finite(self, batch: list[Tokens]) -> Vector:
        """What `encode` does, while the session stays."""
        assert self.session is not None
        vectors = self.session.run(batch)
        wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(wrong) and self.precision != "fp32":
            vectors[wrong] = self._in_fp32().run([batch[i] for i in wrong])
            self.not_finite += len(wrong)
            wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(wrong):
            raise EncodingError(
                "encode", f"{len(wrong)} of {len(batch)} texts", "the model gave values that are not finite"
            )
        return vectors

    def _in_fp32(self) -> Session:
        """The graph of what another precision cannot hold, loaded once it is needed. Raises what `encode`
        raises."""
        with self._opening:
            if self._exact is None:
                try:
                    self._exact = self._open("fp32", self.device)
                except Exception as error:  # of a device, its runtime or a file; no text is at fault
                    if any(map(_is_out_of_memory, (error, error.__cause__))):
                        raise OutOfMemoryError(f"the fp32 graph beside it: {error}"[-200:]) from error
                    raise EncodingError(
                        "encode",
                        f"what {self.precision} cannot hold",
                        f"the fp32 graph cannot be loaded: {error}",
                        f"Run `{self.card.command}` again if its file is damaged.",
                        retryable=True,
                    ) from error
            return self._exact

    def encode_query(self, text: str) -> Vector:
        """The embedding `[dimension]` of a search text. Raises what `encode` raises."""
        vector: Vector = self.encode(self.tokenize_queries([text]))[0]
        return vector

    def rebuild(self) -> None:
        """Give all device memory back and load the graph again, once no batch is under way.

        Raises ModelError, DeviceError.
        """
        with self._lanes:
            self._lanes.wait_for(lambda: not self._under_way)
            self._exact = None
            self.session = None  # the old one is gone before the new one is made
            self.session = self._open(self.precision, self.device)

    @contextmanager
    def _lane(self) -> Iterator[None]:
        """A batch is under way: no new session until it is done, no batch while a session is made."""
        with self._lanes:
            if self.session is None:
                self.session = self._once_more()
            self._under_way += 1
        try:
            yield
        finally:
            with self._lanes:
                self._under_way -= 1
                self._lanes.notify_all()

    def _once_more(self) -> Session:
        """The graph, where it could not be loaded again. Raises a retryable EncodingError: no text is at
        fault."""
        try:
            return self._open(self.precision, self.device)
        except Exception as error:
            subject, remedy = f"with model {self.card.name!r}", "It is tried again with every batch."
            problem = f"its graph cannot be loaded again: {error}"
            raise EncodingError("encode", subject, problem, remedy, retryable=True) from error

    def _tokenizer(self, cores: int) -> Tokenizer | TokenizerPool:
        """On a CPU tokenising is a small share of the work; tokenizers in one process cannot feed a GPU."""
        given = self._artefact.tokenizer_path, self.max_tokens, self.card.document_prefix
        processes = pool_processes(cores)
        if self.device == "cpu" or self._is_quick or not processes:
            if self.card.document_prefix == self.card.query_prefix:
                return self._queries
            return Tokenizer(*given, is_quick=self._is_quick)
        return TokenizerPool(*given, processes, self._artefact.tokenizer_sha256)

    def _open(self, precision: Precision, device: str) -> Session:
        """The graph on exactly that device. Raises ModelError for the graph, DeviceError for the device."""
        if precision == "bf16":
            return self._in_bf16()
        path = self._artefact.path(precision)
        try:
            session = OnnxSession(
                path, self._artefact.pad_id, device, self._threads, self._memory_limit, precision
            )
            if session.device == device != "cpu":
                # Only a first batch shows that some libraries, cuDNN among them, are missing.
                session.run(self._queries.encode(["freshvec"]))
                session = self._without_padding(precision, device, session)
        except Exception as error:  # onnxruntime raises many kinds
            if device == "cpu":
                problem = f"onnxruntime refuses its {precision} graph: {' '.join(str(error).split())[-300:]}"
                remedy = "Free memory if it lacks some, or install the onnxruntime that it was exported for."
                raise ModelError("load", f"model {self.card.name!r}", problem, remedy) from error
            raise providers.refusal(device, error) from error
        if session.device != device:
            raise providers.refusal(device)
        return session

    def _in_bf16(self) -> Session:
        """The fp32 graph run by OpenVINO. Raises ModelError for the graph, DeviceError for the processor."""
        refusal = openvino_session.refusal()
        if refusal is not None:
            other = "Or write another precision, with which every row is encoded anew."
            raise DeviceError("use", "bf16", refusal.problem, f"{refusal.remedy} {other}")
        path, card = self._artefact.path("fp32"), self.card
        try:
            return OpenVinoSession(path, self._artefact.pad_id, card.normalize, self._threads)
        except Exception as error:  # openvino raises many kinds
            problem = f"OpenVINO refuses its graph: {' '.join(str(error).split())[-300:]}"
            remedy = 'Write precision = "fp32": every row is then encoded anew.'
            raise ModelError("load", f"model {card.name!r}", problem, remedy) from error

    def _without_padding(self, precision: Precision, device: str, padded: OnnxSession) -> OnnxSession:
        """The graph that packs its tokens where it gives the same vectors on this device, else `padded`."""
        path = self._artefact.packed_path(precision)
        if path is None:
            return padded
        texts = self._queries.encode([f"freshvec {'packs its tokens ' * count}" for count in (0, 3, 40)])
        try:
            session = OnnxSession(
                path, self._artefact.pad_id, device, self._threads, self._memory_limit, precision
            )
            same = cosines(session.run(texts), padded.run(texts)).min()
        except Exception as error:  # onnxruntime raises many kinds
            logger.warning("batches stay padded, since the packed graph cannot be used: {}", error)
            return padded
        if same < _SAME:
            logger.warning("batches stay padded, since the packed graph is not the same: cosine {}", same)
            return padded
        return session

    def _start(self, wanted: str, precision: Precision | None) -> tuple[Session, Precision]:
        """The session on the wanted device. `auto` falls back to the CPU with one warning that says why."""
        device = providers.choose(wanted)
        if device != "cpu":
            if precision in ("int8", "bf16"):
                raise ModelError(
                    "use", f"{precision} on a GPU", "it is made for the CPU", 'Write device = "cpu", or fp16.'
                )
            best: Precision = precision or ("fp16" if "fp16" in self._artefact.graphs else "fp32")
            try:
                return self._open(best, device), best
            except DeviceError as error:
                if wanted != "auto":
                    raise
                logger.warning("encoding on the CPU: {}", error)
        # On a CPU the fp16 graph is slower than fp32, so the CPU never runs it, whatever is configured.
        on_cpu: Precision = precision if precision in ("int8", "bf16") else "fp32"
        return self._open(on_cpu, "cpu"), on_cpu


def _is_out_of_memory(error: BaseException | None) -> bool:
    return isinstance(error, OutOfMemoryError) or (isinstance(error, Exception) and out_of_memory(error))
