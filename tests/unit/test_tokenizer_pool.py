"""Tokenizers in processes of their own: the same tokens as one gives, whatever becomes of the processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

import numpy as np
import pytest

from freshvec.encoding.tokenizer import Tokenizer
from freshvec.encoding.tokenizer_pool import TokenizerPool, TokenizerProcess
from freshvec.models.artefact import checksum
from freshvec.records import Tokens
from tests.support import MODEL, is_running, until

Wanted = list[tuple[list[int], bool]]
TEXTS = [f"text number {n} " * (n % 120) for n in range(700)]
ENDS_AT_ONCE = """
import os, signal, sys
from multiprocessing import active_children
from pathlib import Path
from freshvec.encoding.tokenizer_pool import TokenizerPool
from freshvec.models.artefact import checksum
path = Path(sys.argv[1])
pool = TokenizerPool(path, 256, "", 2, checksum(path))
pool.encode(["text"] * 700)
print(*(child.pid for child in active_children()), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def path(models_dir: Path) -> Path:
    return models_dir / MODEL / "tokenizer.json"


@pytest.fixture
def pool(path: Path) -> Iterator[TokenizerPool]:
    made = TokenizerPool(path, 256, "", 2, checksum(path), rest_seconds=0)
    yield made
    made.close()
    assert not pids()


def pids() -> set[int]:
    """Of the processes that there are."""
    return {child.pid or 0 for child in multiprocessing.active_children()}


def kill(pids: set[int], sent: signal.Signals = signal.SIGKILL) -> None:
    for pid in pids:
        os.kill(pid, sent)


def plain(tokens: list[Tokens]) -> Wanted:
    return [(text.ids.tolist(), text.truncated) for text in tokens]


@pytest.fixture(scope="module")
def wanted(path: Path) -> Wanted:
    return plain(Tokenizer(path, 256).encode(TEXTS))


def test_it_gives_what_one_gives(pool: TokenizerPool, wanted: Wanted) -> None:
    for count in (3, 700):
        many = pool.encode(TEXTS[:count])
        assert plain(many) == wanted[:count]
    assert many[0].ids.dtype == np.int64
    assert len(pids()) == 2


def test_processes_that_are_killed_at_work_lose_nothing(pool: TokenizerPool, wanted: Wanted) -> None:
    pool.encode(TEXTS)
    killed = pids()
    kill(killed, signal.SIGSTOP)
    found: list[Tokens] = []
    thread = threading.Thread(target=lambda: found.extend(pool.encode(TEXTS)))
    thread.start()
    kill(killed)
    thread.join(60)
    assert plain(found) == wanted
    assert plain(pool.encode(TEXTS)) == wanted
    assert len(pids()) == 2
    assert not pids() & killed, "there are others"


@pytest.mark.parametrize("how_many", [1, 2])
def test_processes_that_are_killed_while_idle_are_begun_again(
    pool: TokenizerPool, wanted: Wanted, how_many: int
) -> None:
    pool.encode(TEXTS)
    killed = set(list(pids())[:how_many])
    kill(killed)
    until("they are gone", lambda: not any(map(is_running, killed)))
    for _ in range(2):
        assert plain(pool.encode(TEXTS)) == wanted
    assert len(pids()) == 2
    assert not pids() & killed


def test_where_no_process_can_be_begun_texts_are_tokenised_here(
    path: Path, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(process: SpawnProcess) -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    with monkeypatch.context() as patched:
        patched.setattr(SpawnProcess, "start", full)
        pool = TokenizerPool(path, 256, "", 2, checksum(path), rest_seconds=0)
        assert plain(pool.encode(TEXTS)) == wanted
        assert not pids()
    assert plain(pool.encode(TEXTS)) == wanted
    assert pids(), "there is room again"
    pool.close()


def test_processes_are_not_begun_one_after_the_other_to_be_killed(path: Path, wanted: Wanted) -> None:
    pool = TokenizerPool(path, 256, "", 2, checksum(path), rest_seconds=3600)
    kill(pids())
    for _ in range(2):
        assert plain(pool.encode(TEXTS)) == wanted
        assert not pids()
    pool.close()


def test_an_answer_that_was_not_taken_is_not_that_to_other_texts(
    path: Path, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(connection: Connection) -> None:
        raise MemoryError

    process = TokenizerProcess(path, 256, "", checksum(path))
    with monkeypatch.context() as patched:
        patched.setattr(Connection, "recv", full)
        with pytest.raises(MemoryError):
            process.encode(["others"])
    assert plain(process.encode(TEXTS[:3])) == wanted[:3]
    process.end()


def test_processes_end_with_the_one_that_began_them(path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ENDS_AT_ONCE, str(path)], capture_output=True, text=True, check=False
    )
    begun = [int(pid) for pid in ended.stdout.split()]
    assert len(begun) == 2
    until("they have ended", lambda: not any(map(is_running, begun)))


def test_a_process_that_is_begun_again_does_not_take_another_file(
    path: Path, wanted: Wanted, tmp_path: Path
) -> None:
    """A new export may have put one there: its tokens are not those of the model that is loaded."""
    copy = tmp_path / "tokenizer.json"
    copy.write_bytes(path.read_bytes())
    pool = TokenizerPool(copy, 256, "", 2, checksum(copy), rest_seconds=0)
    assert plain(pool.encode(TEXTS)) == wanted
    copy.write_text(path.read_text().replace('"text"', '"text of another"'))
    assert plain(Tokenizer(copy, 256).encode(TEXTS)) != wanted
    killed = pids()
    kill(killed)
    for _ in range(2):
        assert plain(pool.encode(TEXTS)) == wanted
    pool.close()


def test_a_process_whose_file_is_another_says_so(path: Path) -> None:
    process = TokenizerProcess(path, 256, "", "the checksum of another")
    with pytest.raises(ChildProcessError, match="its file is not the one that was loaded"):
        process.encode(TEXTS[:3])
    process.end()
