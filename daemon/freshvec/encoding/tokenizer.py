"""Text to token ids, cut at the model's limit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as HuggingFaceTokenizer

from freshvec.encoding.quick_tokens import QuickTokens
from freshvec.records import Tokens

_CHARACTERS_PER_TOKEN = 8  # a first guess; ordinary text has three to five


class Tokenizer:
    """A Hugging Face fast tokenizer; the model's limit replaces the padding and truncation of its file.

    `max_tokens` counts special tokens and `prefix`, which goes before each text. Encoding runs on every core
    and without the interpreter's lock. `is_quick`: nanotoken makes the ids, which were proved to be equal.
    """

    def __init__(self, path: Path, max_tokens: int, prefix: str = "", *, is_quick: bool = False) -> None:
        self._tokenizer = HuggingFaceTokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._max_tokens = max_tokens
        self._prefix = prefix
        self._quick = QuickTokens(path, max_tokens) if is_quick else None

    def encode(self, texts: list[str]) -> list[Tokens]:
        """One entry per text, special tokens included."""
        heads = [self._head(self._prefix + text) for text in texts]
        if self._quick is not None:
            return [
                replace(tokens, truncated=True) if len(head) < len(self._prefix) + len(text) else tokens
                for tokens, head, text in zip(self._quick.encode(heads), heads, texts, strict=True)
            ]
        encodings = self._tokenizer.encode_batch_fast(heads)
        return [
            Tokens(
                np.array(encoding.ids, dtype=np.int64),
                len(head) < len(self._prefix) + len(text) or bool(encoding.overflowing),
            )
            for encoding, head, text in zip(encodings, heads, texts, strict=True)
        ]

    def _head(self, text: str) -> str:
        """The start of a long text that already holds every token the model reads.

        Tokenising all of a megabyte to keep 256 tokens would cost its whole length in time and memory. The
        cut falls on white space, which no token crosses, in WordPiece, Unigram and byte-level BPE alike.
        """
        size = self._max_tokens * _CHARACTERS_PER_TOKEN
        while len(text) > size:
            cut = max(text.rfind(" ", 0, size), text.rfind("\n", 0, size))
            if cut > 0 and self._tokenizer.encode(text[:cut]).overflowing:
                return text[:cut]
            size *= 2
        return text
