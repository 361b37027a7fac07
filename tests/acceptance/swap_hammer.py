"""`python -m tests.acceptance.swap_hammer [--runs 5] [--version 18]`: a swap, a commit, a rollback and
another commit while rows are hot, and workers and commands are killed. At rest what the view shows has to be
right, and a client that searches all the while has to get its answers.

A second client asks the same of a table that nobody touches: what it waits for is the machine.
"""

import argparse
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psycopg

from freshvec.embedded import EmbeddedPostgres
from tests.acceptance.hammer import Stage, has_written, last_fence
from tests.acceptance.hot_rows import hammers
from tests.conftest import QUICK
from tests.second_model import SECOND, encoder_of, two_models
from tests.staleness import EVERY_ROW_SHOWN, stale
from tests.support import MODEL, Connection, WorkerProcess, count, exists, until

ROWS = 200
_SHOWING_SECONDS = 1.5  # before a command's end, when the view comes to show the other edition
SEARCH = "SELECT id FROM {} ORDER BY embedding <=> %s::text::vector LIMIT 10"
AT_REST = """
SELECT bool_and(backlog = 0 AND coverage = 1 AND backfill_done AND NOT rescan_waiting) FROM freshvec.status
"""
IS_FILLED = "freshvec.sync WHERE name = 'docs.2' AND (backfill_done OR walk_proves)"


@dataclass
class Answers:
    """What a client that searches all the while has got: when each answer came, how long after the one
    before, in seconds, and what went wrong."""

    times: list[tuple[float, float]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def longest(self, begin: float = 0.0, end: float = float("inf")) -> float:
        """The longest time without an answer, in ms."""
        return 1000 * max((gap for at, gap in self.times if begin <= at <= end), default=0.0)


@contextmanager
def searching(url: str, table: str) -> Iterator[Answers]:
    """A client that searches a table until the end."""
    over, got = threading.Event(), Answers()
    vector = str([1.0] * 384)

    def search() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            query, last = SEARCH.format(table).encode(), time.monotonic()
            while not over.is_set():
                try:
                    if not connection.execute(query, (vector,)).fetchall():
                        got.wrong.append("no row was found")
                except psycopg.Error as error:
                    got.wrong.append(str(error))
                now = time.monotonic()
                got.times.append((now, now - last))
                last = now
                time.sleep(0.001)

    thread = threading.Thread(target=search)
    thread.start()
    try:
        yield got
    finally:
        over.set()
        thread.join()


class SwapStage(Stage):
    """The same stage with two models, and the command."""

    def __init__(self, url: str, folder: Path, seed: int) -> None:
        self.models = two_models(folder / "models")
        super().__init__(url, folder, seed, self.models)
        self._folder, self._luck = folder, random.Random(seed)
        self.steps: list[tuple[str, float, float]] = []  # what was done, from when to when

    def step(self, *arguments: str) -> None:
        """The command, killed amid its work, and again until it is done."""
        killed = self._command(*arguments)
        time.sleep(self._luck.uniform(0.3, 3.0))  # wherever it is by then
        killed.kill()
        deadline = time.monotonic() + 180
        while (again := self._command(*arguments)).process.wait(120):
            assert time.monotonic() < deadline, again.output
        self.steps.append((arguments[0], time.monotonic() - _SHOWING_SECONDS, time.monotonic()))
        self.befell.append(arguments[0])

    def _command(self, *arguments: str) -> WorkerProcess:
        log = self._folder / "swap.log"
        return WorkerProcess(self.config, "swap", "docs", *arguments, log=log)

    def kill_a_worker(self) -> None:
        """One of the two, whichever it is."""
        self.workers.pop(self._luck.randrange(2)).kill()
        self.workers.append(self.start())
        self.befell.append("kill")


@dataclass
class Run:
    """What came of one: what is wrong at rest, what the two clients got, and when each step was done."""

    wrong: list[str]
    got: Answers
    still: Answers
    steps: list[tuple[str, float, float]]

    def told(self) -> str:
        """The longest gaps of each client, in all and amid each step."""
        parts = [f"longest gap {self.got.longest():.0f} ms, beside it {self.still.longest():.0f} ms"]
        parts += [
            f"amid {step} {self.got.longest(*when):.0f} and {self.still.longest(*when):.0f}"
            for step, *when in self.steps
        ]
        return f"{len(self.got.times):,} answers, {'; '.join(parts)}"


def swapped(url: str, seed: int) -> Run:
    """One run on a fresh database."""
    with psycopg.connect(url, autocommit=True) as connection, ExitStack() as stack:
        connection.execute(
            "CREATE EXTENSION IF NOT EXISTS vector; CREATE TABLE docs (id int PRIMARY KEY, body text)"
        )
        connection.execute("INSERT INTO docs SELECT g, 'row ' || g FROM generate_series(0, 199) g")
        stage = SwapStage(url, Path(stack.enter_context(tempfile.TemporaryDirectory())), seed)
        stack.callback(stage.close)
        until("there is something to find", lambda: exists(connection, "docs_embedded"))
        until("all of it", lambda: count(connection, "docs_embedded") == ROWS)
        connection.execute("CREATE TABLE still AS SELECT id, embedding FROM docs_embedded")
        with searching(url, "docs_embedded") as got, searching(url, "still") as still:
            with hammers(url, ROWS, rest=0.2):
                _steps(stage, connection)
            until(
                "everything is fresh", lambda: connection.execute(AT_REST.encode()).fetchone() == (True,), 180
            )
        print(f"  {', '.join(stage.befell)}", flush=True)
        new, old = encoder_of(stage.models, SECOND), encoder_of(stage.models, MODEL)
        wrong = [f"shown: {each}" for each in stale(connection, new, EVERY_ROW_SHOWN)]
        wrong += [f"kept: {each}" for each in stale(connection, old)]
        return Run(wrong + got.wrong, got, still, stage.steps)


def _is_at_rest(connection: Connection) -> bool:
    return connection.execute(AT_REST.encode()).fetchone() == (True,)


def _steps(stage: SwapStage, connection: Connection) -> None:
    """The swap, with a kill of a worker before each step."""
    until("it has written", partial(has_written, connection, last_fence(connection)))
    stage.step("--yes", "--model", SECOND)
    stage.kill_a_worker()
    until("the second is filled", lambda: count(connection, IS_FILLED) == 1)
    for step in ("--commit", "--rollback", "--commit"):
        stage.kill_a_worker()
        stage.step(step)
        until("it has written", partial(has_written, connection, last_fence(connection)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--version", type=int, default=18, choices=[16, 18])
    arguments = parser.parse_args()
    bad = 0
    with EmbeddedPostgres(arguments.version, **QUICK) as server:
        for seed in range(arguments.runs):
            with psycopg.connect(server.url(), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE swap_{seed}".encode())
            run = swapped(server.url(f"swap_{seed}"), seed)
            bad += bool(run.wrong)
            found = run.wrong or "nothing wrong"
            print(f"run {seed + 1} on {arguments.version}: {found}; {run.told()}", flush=True)
    print(f"{arguments.runs} runs on {arguments.version}, {bad} of them with something wrong")
    return int(bad > 0)


if __name__ == "__main__":
    raise SystemExit(main())
