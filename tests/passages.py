"""Texts cut into passages, in tests: an encoder whose tokens are words, and what is at rest compared."""

import hashlib
import random
import re
import sys
import tempfile
from pathlib import Path

import numpy as np

from freshvec.encoding.passages import split
from freshvec.records import Tokens, Vector
from freshvec.worker.worker import Worker
from tests.staleness import as_vector
from tests.support import Connection, NullEncoder, settings_for, sync_of

TOKENS, OVERLAP = 60, 10
SPECIAL = 2  # tokens around each text


class WordEncoder(NullEncoder):
    """A token is a word, or a mark; a vector is that of all the tokens in their order. It reads `max_tokens`,
    special tokens included."""

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        return [self._tokens(text) for text in texts]

    def _tokens(self, text: str) -> Tokens:
        words = words_of(text)
        kept = words[: self.max_tokens - SPECIAL]
        ids = [1, *(int.from_bytes(hashlib.sha256(word.encode()).digest()[:7]) for word in kept), 2]
        tokens = Tokens(np.array(ids, dtype=np.int64), len(kept) < len(words))
        if self.refuse is not None:
            self._texts[tokens.ids.tobytes()] = text
        return tokens

    def encode(self, batch: list[Tokens]) -> Vector:
        digests = [np.frombuffer(hashlib.sha256(one.ids.tobytes()).digest(), np.int64) for one in batch]
        for one, digest in zip(batch, digests, strict=True):
            if one.ids.tobytes() in self._texts:
                self._texts[digest.tobytes()] = self._texts[one.ids.tobytes()]
        return super().encode([Tokens(digest) for digest in digests])


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text)


def count(texts: list[str]) -> list[int]:
    """How many tokens each text has."""
    return [len(words_of(text)) for text in texts]


WORDS = [hashlib.sha256(str(number).encode()).hexdigest()[: 3 + number % 6] for number in range(500)]


def prose(paragraphs: int, seed: int = 0) -> str:
    """So many paragraphs of a few sentences, each time the same."""
    chance = random.Random(seed)

    def sentence() -> str:
        return " ".join(chance.choices(WORDS, k=chance.randint(5, 20))).capitalize() + "."

    return "\n\n".join(" ".join(sentence() for _ in range(chance.randint(1, 6))) for _ in range(paragraphs))


def stale_passages(connection: Connection, encoder: NullEncoder, tokens: int, overlap: int = 0) -> list[str]:
    """What is wrong at rest with the passages of `docs`: places and vectors against each row's text as it is
    cut and encoded now."""
    has: dict[int, dict[tuple[int, int], Vector]] = {}
    for key, begin, end, vector in connection.execute(
        "SELECT id, chunk_start, chunk_end, embedding::text FROM docs_chunk"
    ):
        has.setdefault(key, {})[begin, end] = as_vector(vector)
    wrong = []
    for key, text in connection.execute("SELECT id, body FROM docs").fetchall():
        found = has.pop(key, {})
        spans = split(text, count, tokens, overlap) if text and text.strip() else []
        if sorted(found) != sorted(spans):
            wrong.append(f"{key}: {len(found)} passages instead of {len(spans)}, or others")
            continue
        for span, fresh in zip(
            spans,
            encoder.encode(encoder.tokenize([text[b:e] for b, e in spans])) if spans else [],
            strict=True,
        ):
            if float(found[span] @ fresh) < 0.9999:
                wrong.append(f"{key}: the vector at {span} is not of its text")
    return wrong + [f"{key}: orphaned" for key in has]


def main(url: str) -> None:
    """A worker that cuts the texts of `docs`, as a process that can be killed."""
    with tempfile.TemporaryDirectory() as folder:
        declared = sync_of("docs", chunk={"tokens": TOKENS, "overlap": OVERLAP})
        small = {"page_rows": 20, "commit_every_batches": 1, "batch_tokens": 512}
        settings = settings_for(url, declared, models_dir=Path(folder), **small)
        Worker(settings, settings.sync, load=lambda _: WordEncoder(seconds_a_batch=0.002)).run()


if __name__ == "__main__":
    main(sys.argv[1])
