"""How fast a model encodes some texts on this machine, tried for about a second."""

import random
import time
from collections.abc import Sequence

from loguru import logger

from freshvec.encoding.batching import plan_batches
from freshvec.encoding.loading import Models
from freshvec.encoding.tokenizer import Tokenizer
from freshvec.errors import FreshvecError
from freshvec.records import OutOfMemoryError

_ALL = 1_000_000  # tokens: no text is cut
_SECONDS = 1.0


class Rates:
    """What is measured of models, each once: how long texts are, and how fast they are encoded."""

    def __init__(self, models: Models, *, is_tried: bool = True) -> None:
        """`is_tried`: whether a model is loaded to see how fast it is."""
        self._models = models
        self._is_tried = is_tried
        self._counters: dict[str, Tokenizer] = {}
        self._rates: dict[str, float | None] = {}

    def lengths(self, name: str, texts: Sequence[str]) -> list[int]:
        """Tokens of texts, by the model's own tokenizer, cut nowhere. Raises ModelError."""
        if name not in self._counters:
            artefact = self._models.artefact(name)
            prefix = artefact.card.document_prefix
            self._counters[name] = Tokenizer(artefact.tokenizer_path, _ALL, prefix)
        return [len(tokens) for tokens in self._counters[name].encode(list(texts))]

    def rate(self, name: str, texts: Sequence[str]) -> float | None:
        """Tokens per second of these or such texts; None where it is not tried, or the model does not run."""
        if not self._is_tried:
            return None
        if name not in self._rates:
            try:
                self._rates[name] = tokens_per_second(self._models, name, texts)
            except (FreshvecError, OutOfMemoryError) as error:
                logger.warning("how fast {} is here could not be measured: {}", name, error)
                self._rates[name] = None
        return self._rates[name]


def tokens_per_second(models: Models, name: str, texts: Sequence[str], seconds: float = _SECONDS) -> float:
    """Real tokens that the model encodes per second, tokenising included, in batches as the daemon's.

    Raises ModelError, DeviceError, and OutOfMemoryError where the device cannot hold a batch.
    """
    encoder = models.encoder(name)
    started = time.perf_counter()
    tokens = encoder.tokenize(list(texts))
    tokenizing = (time.perf_counter() - started) / max(sum(map(len, tokens)), 1)
    size = models.first_batch_tokens(name, encoder)
    batches = plan_batches([len(text) for text in tokens], lambda: size)
    random.Random(0).shuffle(batches)  # not the longest texts first
    encoder.encode([tokens[i] for i in batches[0].indices])  # the first one is slow
    encoded, started = 0, time.perf_counter()
    while True:
        for batch in batches:
            encoder.encode([tokens[i] for i in batch.indices])
            encoded += sum(len(tokens[i]) for i in batch.indices)
            taken = time.perf_counter() - started
            if taken >= seconds:
                return 1 / (taken / encoded + tokenizing)
