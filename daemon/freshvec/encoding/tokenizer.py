"""Text to token ids, cut at the model's limit."""

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as HuggingFaceTokenizer

from freshvec.encoding.quick_tokens import QuickTokens
from freshvec.errors import ModelError
from freshvec.records import Tokens

_CHARACTERS_PER_TOKEN = 8  # a first guess; ordinary text has three to five


def _opened(path: Path) -> HuggingFaceTokenizer:
    try:
        return HuggingFaceTokenizer.from_file(str(path))
    except Exception as error:  # it raises no kind of its own
        remedy = "Install the version of tokenizers that it was made for."
        raise ModelError("load", str(path), f"tokenizers cannot read it: {error}", remedy) from error


class Tokenizer:
    """A Hugging Face fast tokenizer; the model's limit replaces the padding and truncation of its file.

    `max_tokens` counts special tokens and `prefix`, which goes before each text. Encoding runs on every core
    and without the interpreter's lock. `is_quick`: nanotoken makes the ids, which were proved to be equal.
    """

    def __init__(self, path: Path, max_tokens: int, prefix: str = "", *, is_quick: bool = False) -> None:
        self._tokenizer = _opened(path)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._max_tokens = max_tokens
        self._prefix = prefix
        self._quick = QuickTokens(path, max_tokens) if is_quick else None

    def encode(self, texts: list[str]) -> list[Tokens]:
        """One entry per text, special tokens included."""
        found: dict[int, Tokens] = {}
        first = self._max_tokens * _CHARACTERS_PER_TOKEN
        rest = [(place, self._prefix + text, first) for place, text in enumerate(texts)]
        while rest:
            heads = [_head(text, size) for _, text, size in rest]
            made = list(zip(rest, heads, self._of(heads), strict=True))
            found.update((place, ids) for (place, _, _), _, ids in made)
            # Of what was cut, and holds fewer tokens than the model reads, more is needed.
            rest = [
                (place, text, 2 * max(size, len(head)))
                for (place, text, size), head, ids in made
                if head != text and not ids.truncated
            ]
        return [found[place] for place in range(len(texts))]

    def _of(self, texts: list[str]) -> list[Tokens]:
        """The tokens of texts as they are."""
        if self._quick is not None:
            return self._quick.encode(texts)
        encodings = self._tokenizer.encode_batch_fast(texts)
        return [Tokens(np.array(each.ids, dtype=np.int64), bool(each.overflowing)) for each in encodings]


def _head(text: str, size: int) -> str:
    """The start of a text that is longer than `size`, in characters; more, where it has no white space there.

    Tokenising all of a megabyte to keep 256 tokens would cost its whole length in time and memory. The cut
    falls on white space, which no token crosses, in WordPiece, Unigram and byte-level BPE alike.
    """
    while len(text) > size:
        cut = max(text.rfind(" ", 0, size), text.rfind("\n", 0, size))
        if cut > 0:
            return text[:cut]
        size *= 2
    return text
