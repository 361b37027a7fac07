"""What `run` shows of a backfill: bars on a terminal of any width, lines elsewhere; then nothing."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.test_backfill_cli import SLOW
from tests.support import DOCS_SYNC, Connection, WorkerProcess, config_toml, until, write_config

NAME = "a_name_that_is_as_long_as_a_name_may_be1"
ROWS = 60
FILL = "INSERT INTO docs SELECT g, g || repeat(' words', %s) FROM generate_series(1, %s) g"
DONE = "nothing is left to do; changes are followed as they come"


@pytest.fixture
def config(url: str, docs: Connection, models_dir: Path, tmp_path: Path) -> Path:
    docs.execute(FILL, (20, ROWS))
    sync = DOCS_SYNC.replace('name = "docs"', f'name = "{NAME}"')
    toml = config_toml(url, models_dir, sync, "page_rows = 20\nbatch_tokens = 128")
    return write_config(tmp_path / "freshvec.toml", toml)


class Terminal:
    """A terminal of so many columns, and a program that runs on it."""

    def __init__(self, columns: int, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        # Not the size of the terminal that the tests are run on.
        kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SLOW, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**kept, "TERM": "xterm", "NO_COLOR": "1"},
        )
        os.close(theirs)
        self._written = b""
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        try:
            while part := os.read(self._ours, 65536):
                self._written += part
        except OSError:  # it has ended
            pass

    @property
    def written(self) -> str:
        """What it has shown, without the commands that move the cursor."""
        return re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", self._written.decode(errors="replace"))

    @property
    def shows_cursor(self) -> bool:
        """Whether it is hidden for no longer than between two writes."""
        return b"\x1b[?25l" not in self._written.replace(b"\x1b[?25l\x1b[?25h", b"")

    def lines(self) -> list[str]:
        """Everything that ever stood in one line."""
        return re.split(r"[\r\n]+", self.written)

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(60)
        self._reading.join(10)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)
        self._reading.join(10)
        os.close(self._ours)


@contextmanager
def on_terminal(columns: int, *arguments: str) -> Iterator[Terminal]:
    terminal = Terminal(columns, *arguments)
    try:
        yield terminal
    finally:
        terminal.close()


def edit_and_wait(docs: Connection) -> None:
    """A change, until it is fresh."""
    query = "SELECT fence FROM docs_embedding WHERE id = 1"
    before = docs.execute(query).fetchone()
    docs.execute("UPDATE docs SET body = 'changed' WHERE id = 1")
    until("the edit is fresh", lambda: docs.execute(query).fetchone() != before)


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_terminal_has_a_bar_and_then_a_word_and_then_nothing(
    config: Path, docs: Connection, columns: int
) -> None:
    with on_terminal(columns, "run", "--config", str(config)) as terminal:
        until("it says what it begins with", lambda: "loading all-MiniLM-L6-v2" in terminal.written)
        until("there is a bar", lambda: any(is_bar(line) for line in terminal.lines()))
        until("it says that all is fresh", lambda: DONE in terminal.written)
        edit_and_wait(docs)
        assert terminal.interrupt() == 0
    after = terminal.written.partition(DONE)[2].split("\n")
    assert "SIGINT: finishing" in after[1], "what was changed afterwards is not said"
    bars = [line for line in terminal.lines() if is_bar(line)]
    assert max(map(len, bars)) <= columns
    shares = [int(re.findall(r"(\d+)%", line)[0]) for line in bars]
    assert shares == sorted(shares)
    assert len(set(shares)) > 2, "it moves"
    assert any(0 < share < 100 for share in shares)
    assert all(f"/{ROWS}" in line for line in bars) == (columns > 60)
    assert f"{NAME}: every row is fresh; {ROWS} rows in" in " ".join(terminal.written.split())
    assert "…" not in terminal.written
    assert terminal.shows_cursor, "also for who ends it by a second Ctrl-C"


def is_bar(line: str) -> bool:
    return line.startswith(f"{NAME} ") and "%" in line


def test_a_pipe_has_lines(config: Path, docs: Connection, workers: Callable[..., WorkerProcess]) -> None:
    process = workers(config, "run", python=("-c", SLOW))
    until("it says that all is fresh", lambda: DONE in process.output)
    edit_and_wait(docs)
    assert process.stop() == 0
    before, _, after = process.output.partition(DONE)
    assert re.search(rf"{NAME}: \d+ of {ROWS} rows, \d+ rows/s, ETA ", before)
    assert f"{NAME}: every row is fresh; {ROWS} rows in" in before
    assert "SIGTERM: finishing" in after.splitlines()[1], "what was changed afterwards is not said"
    assert "\x1b" not in process.output


def test_what_could_not_be_encoded_is_not_called_fresh(
    config: Path, docs: Connection, workers: Callable[..., WorkerProcess]
) -> None:
    docs.execute("DELETE FROM docs WHERE id > 3")
    docs.execute("ALTER TABLE docs ADD number int DEFAULT 1")
    docs.execute("UPDATE docs SET number = 0 WHERE id = 2")
    text = config.read_text().replace('columns = ["body"]', 'expression = "body || 1 / number"')
    process = workers(write_config(config, text))
    until("it says how it went", lambda: DONE in process.output)
    assert f"{NAME}: fresh but for 1 rows whose text could not be encoded" in process.output
    assert "every row is fresh" not in process.output
    assert process.stop() == 0
    again = workers(config)
    until("it says it again", lambda: DONE in again.output)
    assert f"{NAME}: fresh but for 1 rows" in again.output, "also of what failed before it began"
