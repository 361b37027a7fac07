"""WordPiece by nanotoken, thirty times as fast as tokenizers; used only where its ids are proved to be equal.

The proof is exhaustive over code points and over what is known to be difficult, and is made at export, or
once beside the models where the package came later.
"""

import itertools
import os
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as HuggingFaceTokenizer

from freshvec.records import Tokens
from freshvec.stdlib_texts import docstrings

PACKAGE = "nanotoken"
_KEPT_WORDS = 1 << 16  # of the cache of each thread: 8 MiB; without a bound up to 130
_DOCSTRINGS = 256
_AT_ONCE = 512  # texts
_CODE_POINTS = 16  # in a text of the proof
_ODD = (
    "",
    " \t\r\n\u00a0\u2003\u3000",
    "[CLS] [SEP][PAD] [UNK]x[MASK] <s></s> ##ing ##",
    "word" * 30,
    "w" * 99 + " " + "w" * 100 + " " + "w" * 101 + " " + "é" * 100,
    "e\u0301\u0323 a\u030a\u0301\u0328 \u0301alone \u200d\u200b\ufeff\u00ad",
    "👩‍👩‍👧‍👦🏽🇩🇪 🎉x🎉 ©️ \U0001f9d1\u200d\U0001f680",
    "漢字かなカナ한국어 mixed漢with字words \u3400\U00020000\U0002a6df\uf900",
    "שלום עולם مرحبا بالعالم \u202eabc\u202c \u0627\u064b\u0651",
    "ǅ ß ẞ İ ı ŉ ﬁ ﬀ Ω K Å ſ ς Σ \u1e9e\u0130\u0149",
    "don't can't U.S.A. 3.14 1,000 a_b-c/d\\e `x` $5 ^ ~ | ＡＢＣ １２３",
    "ก็ हिन्दी தமிழ் ខ្មែរ မြန်မာ",
    "a" * 5000 + " " + "b " * 3000,
)


def installed() -> str | None:
    """The package and its version, None where it is not installed."""
    try:
        return f"{PACKAGE} {version(PACKAGE)}"
    except PackageNotFoundError:
        return None


class QuickTokens:
    """Token ids of texts, cut at `max_tokens`. Raises ValueError for a tokenizer that is not WordPiece's."""

    def __init__(self, path: Path, max_tokens: int) -> None:
        os.environ.setdefault("NANOTOKEN_CACHE_ENTRIES", str(_KEPT_WORDS))
        from nanotoken import WordPieceTokenizer, set_cache_entries

        set_cache_entries(int(os.environ["NANOTOKEN_CACHE_ENTRIES"]))
        self._words: Any = WordPieceTokenizer.from_json(path.read_text(encoding="utf-8"))
        self._end = np.array(self._words.suffix_ids, dtype=np.int64)
        self._max_tokens = max_tokens

    def encode(self, texts: list[str]) -> list[Tokens]:
        """One entry per text, special tokens included."""
        # One more than wanted tells whether a text is cut.
        flat, offsets = self._words.encode_batch(texts, max_length=self._max_tokens + 1)
        ids, ends = flat.astype(np.int64), offsets.tolist()
        return [self._cut(ids[start:end]) for start, end in itertools.pairwise(ends)]

    def _cut(self, ids: Any) -> Tokens:
        if len(ids) <= self._max_tokens:
            return Tokens(ids)
        kept = self._max_tokens - len(self._end)
        return Tokens(np.concatenate([ids[:kept], self._end]), truncated=True)


def proof_texts() -> Iterator[str]:
    """Real texts, texts of difficult kinds, and each code point between letters and beside its neighbours."""
    yield from (text for _, text in itertools.islice(docstrings(), _DOCSTRINGS))
    yield from _ODD
    ranges = range(1, 0xD800), range(0xE000, 0x40000), range(0xE0000, 0xE0200)  # without surrogates
    points = map(chr, itertools.chain(*ranges))  # and without planes of which nothing is assigned
    for some in _by(_CODE_POINTS, points):
        yield "a" + "a ".join(some)
        yield "".join(some)


def difference(path: Path, max_tokens: int, texts: Iterable[str] | None = None) -> str | None:
    """A text whose ids are not those of tokenizers, or why it is not used; None where all are equal."""
    try:
        quick = QuickTokens(path, max_tokens)
    except (ImportError, ValueError) as error:
        return str(error)
    reference = HuggingFaceTokenizer.from_file(str(path))
    reference.no_padding()
    reference.enable_truncation(max_tokens)
    for some in _by(_AT_ONCE, proof_texts() if texts is None else texts):
        wanted = reference.encode_batch_fast(some)
        for text, ours, theirs in zip(some, quick.encode(some), wanted, strict=True):
            if ours.ids.tolist() != theirs.ids or ours.truncated != bool(theirs.overflowing):
                return f"its ids of {text[:60]!a} are others"
    return None


def _by(count: int, items: Iterable[str]) -> Iterator[list[str]]:
    """The items, so many at a time."""
    rest = iter(items)
    while some := list(itertools.islice(rest, count)):
        yield some
