"""How fast an encoder goes through texts, and the batch size its search settles on."""

import random
import time
from dataclasses import dataclass

from freshvec.encoding.batching import plan_batches
from freshvec.encoding.budget import BatchBudget
from freshvec.encoding.tokenizer import Tokenizer, TokenizerPool
from freshvec.models.artefact import Artefact
from freshvec.records import Encoder, OutOfMemoryError

_TOKENIZED = 8192  # texts at least, where tokenising is measured alone


@dataclass(frozen=True)
class Pass:
    """One way through the texts. `tokens` are real ones, `padded` with the padding of their batches."""

    seconds: float  # tokenising included
    tokenizing: float  # seconds
    texts: int
    tokens: int
    padded: int

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def texts_per_second(self) -> float:
        return self.texts / self.seconds

    @property
    def encoded_per_second(self) -> float:
        """Tokens a second of encoding alone."""
        return self.tokens / (self.seconds - self.tokenizing)

    @property
    def waste(self) -> float:
        """Share of the padded tokens that are padding, 0 to 1."""
        return 1 - self.tokens / self.padded


def page_rows(device: str) -> int:
    """Texts the daemon reads, and sorts by length, together."""
    return 1000 if device == "cpu" else 8192


def one_pass(encoder: Encoder, texts: list[str], size: int) -> Pass:
    """Tokenise and encode every text, page by page as a backfill does, in batches of `size` padded tokens."""
    began = time.perf_counter()
    tokenizing, tokens, widths = 0.0, 0, 0
    for start in range(0, len(texts), page_rows(encoder.device)):
        started = time.perf_counter()
        page = encoder.tokenize(texts[start : start + page_rows(encoder.device)])
        tokenizing += time.perf_counter() - started
        lengths = [len(text) for text in page]
        for batch in plan_batches(lengths, lambda: size):
            encoder.encode([page[i] for i in batch.indices])
            widths += max(lengths[i] for i in batch.indices) * len(batch.indices)
        tokens += sum(lengths)
    return Pass(time.perf_counter() - began, tokenizing, len(texts), tokens, widths)


def settle(encoder: Encoder, texts: list[str], budget: BatchBudget, *, seconds: float, passes: int) -> None:
    """Let the daemon's own search look for the batch size, until it has settled or a bound is reached."""
    deadline = time.monotonic() + seconds
    rows = page_rows(encoder.device)
    pages = [encoder.tokenize(texts[start : start + rows]) for start in range(0, len(texts), rows)]
    for page in pages * passes:
        lengths = [len(text) for text in page]
        batches = plan_batches(lengths, budget.next_size)
        random.shuffle(batches)  # as the daemon does: every size meets every length
        for planned in batches:
            if budget.fixed or budget.is_settled or time.monotonic() > deadline:
                return
            batch = [page[i] for i in planned.indices]
            padded = max(map(len, batch)) * len(batch)
            started = time.perf_counter()
            try:
                encoder.encode(batch)
            except OutOfMemoryError:
                budget.out_of_memory(padded)
                continue
            budget.observe(planned.size, padded, sum(map(len, batch)), time.perf_counter() - started)


def tokenizing_rates(
    artefact: Artefact, texts: list[str], rounds: int, processes: int
) -> dict[int, list[float]]:
    """Tokens a second of tokenising alone, a figure a round, by the number of processes: one, and a pool's unless that is 0."""
    card = artefact.card
    given = artefact.tokenizer_path, card.max_tokens, card.document_prefix
    many = (texts * -(-_TOKENIZED // len(texts)))[
        : max(_TOKENIZED, len(texts))
    ]  # enough for every process of a pool
    tokenizers: dict[int, Tokenizer | TokenizerPool] = {1: Tokenizer(*given)}
    if processes:
        tokenizers[processes] = TokenizerPool(*given, processes)
    rates: dict[int, list[float]] = {count: [] for count in tokenizers}
    for _ in range(rounds):
        for count, tokenizer in tokenizers.items():
            began = time.perf_counter()
            tokens = tokenizer.encode(many)
            rates[count].append(sum(map(len, tokens)) / (time.perf_counter() - began))
    for tokenizer in tokenizers.values():
        if isinstance(tokenizer, TokenizerPool):
            tokenizer.close()
    return rates
