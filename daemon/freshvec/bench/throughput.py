"""How fast an encoder goes through texts, and the batch size on which its search settles."""

import random
import time
from dataclasses import dataclass

from freshvec.encoding.batching import page_rows, plan_batches
from freshvec.encoding.budget import BatchBudget
from freshvec.encoding.tokenizer import Tokenizer
from freshvec.encoding.tokenizer_pool import TokenizerPool
from freshvec.errors import EncodingError
from freshvec.models.artefact import Artefact
from freshvec.records import Encoder, OutOfMemoryError

_TOKENIZED = 8192  # texts at least, where tokenising is measured alone


@dataclass(frozen=True)
class Pass:
    """One pass through the texts. `tokens` are the real ones; `padded` counts the padding too."""

    seconds: float  # tokenising included
    tokenizing: float  # seconds
    texts: int
    tokens: int
    padded: int

    @property
    def tokens_per_second(self) -> float:
        """Real tokens, tokenising included."""
        return self.tokens / self.seconds

    @property
    def texts_per_second(self) -> float:
        """Texts, tokenising included."""
        return self.texts / self.seconds

    @property
    def encoded_per_second(self) -> float:
        """Real tokens per second of encoding alone."""
        return self.tokens / (self.seconds - self.tokenizing)

    @property
    def waste(self) -> float:
        """Share of the padded tokens that are padding, 0 to 1."""
        return 1 - self.tokens / self.padded


def one_pass(encoder: Encoder, texts: list[str], size: int) -> Pass:
    """Tokenise and encode every text, in portions as a backfill does, in batches of `size` padded tokens.

    Raises EncodingError where a batch does not fit into the device's memory.
    """
    began = time.perf_counter()
    tokenizing, tokens, padded = 0.0, 0, 0
    for start in range(0, len(texts), page_rows(encoder.device)):
        started = time.perf_counter()
        portion = encoder.tokenize(texts[start : start + page_rows(encoder.device)])
        tokenizing += time.perf_counter() - started
        lengths = [len(text) for text in portion]
        for batch in plan_batches(lengths, lambda: size):
            in_batch = max(lengths[i] for i in batch.indices) * len(batch.indices)
            try:
                encoder.encode([portion[i] for i in batch.indices])
            except OutOfMemoryError as error:
                subject = f"a batch of {in_batch:,} padded tokens on {encoder.device}"
                problem, remedy = f"it does not fit into memory: {error}", "Give fewer by --batch-tokens."
                raise EncodingError("encode", subject, problem, remedy) from error
            padded += in_batch
        tokens += sum(lengths)
    return Pass(time.perf_counter() - began, tokenizing, len(texts), tokens, padded)


def settle(encoder: Encoder, texts: list[str], budget: BatchBudget, *, seconds: float, passes: int) -> None:
    """Let the daemon's own search find the batch size, in at most so many seconds and passes."""
    deadline = time.monotonic() + seconds
    rows = page_rows(encoder.device)
    portions = [encoder.tokenize(texts[start : start + rows]) for start in range(0, len(texts), rows)]
    for portion in portions * passes:
        lengths = [len(text) for text in portion]
        batches = plan_batches(lengths, budget.next_size)
        random.shuffle(batches)  # as the daemon does: every size meets every length
        for planned in batches:
            if budget.fixed or budget.is_settled or time.monotonic() > deadline:
                return
            batch = [portion[i] for i in planned.indices]
            padded = max(map(len, batch)) * len(batch)
            started = time.perf_counter()
            try:
                encoder.encode(batch)
            except OutOfMemoryError:
                budget.out_of_memory(padded)
                continue
            budget.observe(planned.size, padded, sum(map(len, batch)), time.perf_counter() - started)


def tokenizing_rates(
    artefact: Artefact, texts: list[str], rounds: int, processes: int, quick: str | None = None
) -> dict[tuple[str, int], list[float]]:
    """Tokens per second of tokenising alone, one per round, by the package and the number of its processes.

    Those are 1, and `processes`, those of a pool, unless it is 0. `quick`: nanotoken, where it makes the ids
    too.
    """
    card = artefact.card
    given = artefact.tokenizer_path, card.max_tokens, card.document_prefix
    # Enough texts for every process of a pool.
    many = (texts * -(-_TOKENIZED // len(texts)))[: max(_TOKENIZED, len(texts))]
    tokenizers: dict[tuple[str, int], Tokenizer | TokenizerPool] = {("tokenizers", 1): Tokenizer(*given)}
    if processes:
        tokenizers["tokenizers", processes] = TokenizerPool(*given, processes, artefact.tokenizer_sha256)
    if quick:
        tokenizers[quick, 1] = Tokenizer(*given, is_quick=True)
    rates: dict[tuple[str, int], list[float]] = {which: [] for which in tokenizers}
    for _ in range(rounds):
        for which, tokenizer in tokenizers.items():
            began = time.perf_counter()
            tokens = tokenizer.encode(many)
            rates[which].append(sum(map(len, tokens)) / (time.perf_counter() - began))
    for tokenizer in tokenizers.values():
        if isinstance(tokenizer, TokenizerPool):
            tokenizer.close()
    return rates
