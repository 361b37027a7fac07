"""Text to token ids, cut at the model's limit."""

import multiprocessing
import os
import signal
import threading
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as HuggingFaceTokenizer

from freshvec.encoding.quick_tokens import QuickTokens
from freshvec.records import Tokens

_CHARACTERS_PER_TOKEN = 8  # a first guess; ordinary text has three to five
_CHUNK = 128  # texts per task of a pool: few enough to spread a portion over all processes
_SMALL = 64  # at most so many are tokenised here, without the way to another process and back
_MOST = 12  # processes at most


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


def pool_processes(cores: int) -> int:
    """How many processes a pool has on so many cores; 0 where a pool is no help.

    Two cores are left for the daemon's other threads.
    """
    return min(cores - 2, _MOST) if cores >= 4 else 0


class TokenizerPool:
    """A `Tokenizer` in several processes, for a device that encodes faster than one process can tokenise.

    The library's own threads stop scaling after a few cores: on 16 cores 0.9 million tokens per second were
    measured.
    """

    def __init__(self, path: Path, max_tokens: int, prefix: str, processes: int) -> None:
        self._here = Tokenizer(path, max_tokens, prefix)
        # "spawn": a process forked from one with threads and a CUDA context inherits both in an unusable
        # state.
        context = multiprocessing.get_context("spawn")
        self._pool = context.Pool(processes, _begin, (path, max_tokens, prefix))

    def encode(self, texts: list[str]) -> list[Tokens]:
        """One entry per text, special tokens included."""
        if len(texts) <= _SMALL:
            return self._here.encode(texts)
        chunks = [texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK)]
        return list(
            chain.from_iterable(
                _unpacked(*packed) for packed in self._pool.map(_encode_chunk, chunks, chunksize=1)
            )
        )

    def close(self) -> None:
        """End the processes."""
        self._pool.terminate()
        self._pool.join()


_tokenizer: Tokenizer  # of a pool's process


def _begin(path: Path, max_tokens: int, prefix: str) -> None:
    """Prepare a pool's process: a tokenizer on one thread, and an end as soon as its parent ends."""
    global _tokenizer
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Ctrl-C is for the parent, which may want to finish what is under way.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _tokenizer = Tokenizer(path, max_tokens, prefix)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)


def _encode_chunk(texts: list[str]) -> tuple[bytes, bytes, bytes]:
    """Ids, lengths and truncation of a chunk, packed: pickling objects costs more than tokenising."""
    tokens = _tokenizer.encode(texts)
    ids = np.concatenate([text.ids for text in tokens]).astype(np.int32)
    lengths = np.array([len(text) for text in tokens], dtype=np.int32)
    return ids.tobytes(), lengths.tobytes(), bytes(text.truncated for text in tokens)


def _unpacked(ids: bytes, lengths: bytes, truncated: bytes) -> list[Tokens]:
    """What `_encode_chunk` packed, one entry per text."""
    every = np.frombuffer(ids, dtype=np.int32).astype(np.int64)
    ends = np.cumsum(np.frombuffer(lengths, dtype=np.int32)).tolist()
    return [
        Tokens(every[start:end], bool(cut))
        for start, end, cut in zip([0, *ends], ends, truncated, strict=False)
    ]
