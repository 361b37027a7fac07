"""A tokenizer in several processes, any of which may be killed."""

import multiprocessing
import os
import queue
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

import numpy as np
from loguru import logger

from freshvec.encoding.tokenizer import Tokenizer
from freshvec.models.artefact import checksum
from freshvec.records import Tokens

_CHUNK = 128  # texts that a process gets at once: few enough to spread a portion over all processes
_SMALL = 64  # at most so many are tokenised here, without the way to another process and back
_MOST = 12  # processes at most
_REST_SECONDS = 30.0  # that no process is begun after one was lost
_LAST_SECONDS = 1.0  # until a process that has no pipe any more is killed
_OTHER_FILE = 3  # exit code of a process whose file is not the one that its parent has

# "spawn": a process forked from one with threads and a CUDA context inherits both in an unusable state.
_SPAWN = multiprocessing.get_context("spawn")


def pool_processes(cores: int) -> int:
    """How many processes a pool has on so many cores; 0 where a pool is no help.

    Two cores are left for the daemon's other threads.
    """
    return min(cores - 2, _MOST) if cores >= 4 else 0


class TokenizerPool:
    """A `Tokenizer` in several processes, for a device that encodes faster than one process can tokenise.

    The library's own threads stop scaling after a few cores: on 16 cores 0.9 million tokens per second were
    measured. What a process has that is lost is tokenised here, and so is all that has no process until
    others are begun.
    """

    def __init__(
        self,
        path: Path,
        max_tokens: int,
        prefix: str,
        processes: int,
        sha256: str,
        rest_seconds: float = _REST_SECONDS,
    ) -> None:
        """`sha256` is the file's: an export may put another in its place."""
        self._here = Tokenizer(path, max_tokens, prefix)
        self._rest_seconds = rest_seconds
        self._due = 0.0  # no process is begun before that
        self._processes = [TokenizerProcess(path, max_tokens, prefix, sha256) for _ in range(processes)]
        self._idle: queue.SimpleQueue[TokenizerProcess] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(processes, "tokenizer")  # one waits for each process
        for process in self._processes:
            self._idle.put(process)
        try:
            for process in self._processes:
                process.begin()
        except OSError as error:
            self._rest(error)

    def encode(self, texts: list[str]) -> list[Tokens]:
        """One entry per text, special tokens included."""
        if len(texts) <= _SMALL:
            return self._here.encode(texts)
        chunks = [texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK)]
        return list(chain.from_iterable(self._threads.map(self._encode_chunk, chunks)))

    def close(self) -> None:
        """End the processes."""
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.end()

    def _encode_chunk(self, texts: list[str]) -> list[Tokens]:
        process = self._idle.get()
        try:
            if process.is_begun or time.monotonic() >= self._due:
                return process.encode(texts)
        except OSError as error:
            self._rest(error)
        finally:
            self._idle.put(process)
        return self._here.encode(texts)

    def _rest(self, error: OSError) -> None:
        """A process is lost, or could not be begun: said once for all that are at that time."""
        is_said, self._due = time.monotonic() < self._due, time.monotonic() + self._rest_seconds
        if not is_said:
            message = "a process that tokenises is lost; for {:.0f} s its texts are tokenised without it: {}"
            logger.warning(message, self._rest_seconds, error)


class TokenizerProcess:
    """A `Tokenizer` in a process of its own, which is begun again where it was lost.

    It has a pipe that no other process holds an end of, so the end of either process is seen at the other's
    end at once, whatever was under way. Pools of the standard library share a pipe and its lock, and wait for
    ever for who was killed with one in hand.
    """

    def __init__(self, path: Path, max_tokens: int, prefix: str, sha256: str) -> None:
        self._given = path, max_tokens, prefix, sha256
        self._begun: tuple[SpawnProcess, Connection] | None = None

    @property
    def is_begun(self) -> bool:
        return self._begun is not None

    def begin(self) -> Connection:
        """Begin the process, where there is none. Raises OSError where the system has no room for it."""
        if self._begun is None:
            ours, its = _SPAWN.Pipe()
            with its:  # the process has its own copy
                process = _SPAWN.Process(target=_serve, args=(its, *self._given), daemon=True)
                process.start()
            self._begun = process, ours
        return self._begun[1]

    def encode(self, texts: list[str]) -> list[Tokens]:
        """One entry per text. Raises OSError where the process is lost or cannot be begun."""
        connection = self.begin()
        try:
            connection.send(texts)
            return _unpacked(*connection.recv())
        except (EOFError, OSError) as error:
            code = self.end()
            problem = (
                "its file is not the one that was loaded" if code == _OTHER_FILE else f"exit code {code}"
            )
            raise ChildProcessError(f"it ended: {problem}") from error
        except BaseException:
            self.end()  # an answer that was not taken would be that to the next texts
            raise

    def end(self) -> int | None:
        """End the process, if it has not ended yet; gives its exit code."""
        if self._begun is None:
            return None
        (process, connection), self._begun = self._begun, None
        connection.close()
        process.join(_LAST_SECONDS)
        process.kill()
        process.join()
        return process.exitcode


def _serve(connection: Connection, path: Path, max_tokens: int, prefix: str, sha256: str) -> None:
    """The process: a tokenizer on one thread, until the pipe's other end is closed."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Ctrl-C is for the parent, which may want to finish what is under way.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tokenizer = Tokenizer(path, max_tokens, prefix)
    if checksum(path) != sha256:  # afterwards: it may be exchanged at any time
        sys.exit(_OTHER_FILE)
    with suppress(EOFError, OSError):
        while True:
            connection.send(_packed(tokenizer.encode(connection.recv())))


def _packed(tokens: list[Tokens]) -> tuple[bytes, bytes, bytes]:
    """Ids, lengths and truncation of a chunk: pickling objects costs more than tokenising."""
    ids = np.concatenate([text.ids for text in tokens]).astype(np.int32)
    lengths = np.array([len(text) for text in tokens], dtype=np.int32)
    return ids.tobytes(), lengths.tobytes(), bytes(text.truncated for text in tokens)


def _unpacked(ids: bytes, lengths: bytes, truncated: bytes) -> list[Tokens]:
    """What `_packed` packed, one entry per text."""
    every = np.frombuffer(ids, dtype=np.int32).astype(np.int64)
    ends = np.cumsum(np.frombuffer(lengths, dtype=np.int32)).tolist()
    return [
        Tokens(every[start:end], bool(cut))
        for start, end, cut in zip([0, *ends], ends, truncated, strict=False)
    ]
