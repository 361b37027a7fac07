"""`python -m tests.acceptance.hammer [--runs 10] [--seconds 60] [--version 18]`: hot rows, and
workers that are killed, stopped past their takeover and woken; at rest no vector may be another text's.

The suite takes the same hammer for as long as its tests need it (test_never_stale.py).
"""

import argparse
import random
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import count as numbers
from pathlib import Path

import psycopg

from freshvec.embedded import EmbeddedPostgres
from freshvec.encoding.encoder import OnnxEncoder
from tests.exports import exported
from tests.support import (
    DOCS_SYNC,
    MODEL,
    Connection,
    WorkerProcess,
    config_toml,
    exists,
    models_in,
    stale,
    until,
    write_config,
)

WORDS = ["amber", "basalt", "cedar", "dune", "ember", "fjord", "grove", "heath", "islet", "kelp", "mesa"]


class Hammer:
    """One application session that edits, reverts, empties, deletes, inserts and renumbers hot rows."""

    def __init__(self, connection: Connection, seed: int, rows: int) -> None:
        self._execute = connection.execute
        self._connection = connection
        self._choose = random.Random(seed)
        self._rows = rows

    def strike(self) -> None:
        choose = self._choose
        row, text = choose.randrange(self._rows), " ".join(choose.choices(WORDS, k=choose.randrange(1, 12)))
        strikes = (self.edit, self.set_again, self.delete, self.insert, self.edit_twice, self.renumber)
        (strike,) = choose.choices(strikes, weights=(65, 10, 7, 12, 3, 3))
        strike(row, text)

    def edit(self, row: int, text: str | None) -> None:
        self._execute("UPDATE docs SET body = %s WHERE id = %s", (text, row))

    def set_again(self, row: int, text: str) -> None:
        self.edit(row, self._choose.choice([None, "", "the usual"]))

    def delete(self, row: int, text: str) -> None:
        self._execute("DELETE FROM docs WHERE id = %s", (row,))

    def insert(self, row: int, text: str) -> None:
        upsert = "INSERT INTO docs VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET body = excluded.body"
        self._execute(upsert, (row, text))

    def edit_twice(self, row: int, text: str) -> None:
        with self._connection.transaction():
            self.edit(row, text)
            self.edit(row, "the usual")

    def renumber(self, row: int, text: str) -> None:
        with suppress(psycopg.errors.UniqueViolation):  # another row has that number just now
            self._execute("UPDATE docs SET id = %s WHERE id = %s", (self._choose.randrange(self._rows), row))


@contextmanager
def hammers(url: str, rows: int, writers: int = 4, rest: float = 0.0) -> Iterator[list[int]]:
    """Sessions that write all the while, with a rest after each strike; how often each has struck is known at
    the end."""
    over, struck = threading.Event(), [0] * writers

    def write(seed: int) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            hammer = Hammer(connection, seed, rows)
            while not over.is_set():
                hammer.strike()
                struck[seed] += 1
                over.wait(rest)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(writers)]
    for thread in threads:
        thread.start()
    try:
        yield struck
    finally:
        over.set()
        for thread in threads:
            thread.join()


def last_fence(connection: Connection) -> int:
    """The fence of the latest read that has been written."""
    (fence,) = connection.execute("SELECT coalesce(max(fence), 0) FROM docs_embedding").fetchone() or (0,)
    return int(fence)


def has_written(connection: Connection, after: int) -> bool:
    return last_fence(connection) > after + 10


AT_REST = "SELECT backlog = 0 AND coverage = 1 AND backfill_done AND NOT rescan_waiting FROM freshvec.status"


SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'freshvec%' AND state = '{}'"


def stopped_outside_of_transactions(process: WorkerProcess, connection: Connection) -> bool:
    """Stop it, unless it has begun a transaction: whose locks the server takes away only after 15 s."""

    def sessions(state: str) -> int:
        (number,) = connection.execute(SESSIONS.format(state).encode()).fetchone() or (0,)
        return int(number)

    process.process.send_signal(signal.SIGSTOP)
    until("its statements have ended", lambda: sessions("active") == 0)
    if sessions("idle in transaction") == 0:
        return True
    process.process.send_signal(signal.SIGCONT)
    return False


def owner(connection: Connection) -> tuple[int | None]:
    (pid,) = connection.execute("SELECT owner_pid FROM freshvec.status").fetchone() or (None,)
    return (pid,)


class Stage:
    """One run: a server, two workers of which one stands by, and what befalls them."""

    def __init__(self, url: str, folder: Path, seed: int, models: Path | None = None) -> None:
        toml = config_toml(url, models or exported(), DOCS_SYNC)
        self.config = write_config(folder / "freshvec.toml", toml)
        self._folder, self._choose = folder, random.Random(seed)
        self._numbers = numbers()
        self.connection = psycopg.connect(url, autocommit=True)
        self.workers = [self.start(), self.start()]
        self.befell: list[str] = []

    def start(self) -> WorkerProcess:
        return WorkerProcess(self.config, log=self._folder / f"worker-{next(self._numbers)}.log")

    def befall(self) -> None:
        """One worker is killed, or the owner is stopped, loses its ownership, and is woken as a zombie."""
        self.befell.append(self._choose.choice(["kill", "zombie"]))
        if self.befell[-1] == "kill":
            self.workers.pop(self._choose.randrange(2)).kill()
            self.workers.append(self.start())
            return
        before = owner(self.connection)
        if before == (None,):
            return
        for process in self.workers:
            process.process.send_signal(signal.SIGSTOP)
        self.connection.execute("SELECT pg_terminate_backend(%s)", before)
        first, second = self._choose.sample(self.workers, 2)
        first.process.send_signal(signal.SIGCONT)
        taken = partial(self._is_taken, before)
        until("another owns the sync, or the same again", taken)
        second.process.send_signal(signal.SIGCONT)

    def _is_taken(self, before: tuple[int | None]) -> bool:
        return owner(self.connection) not in (before, (None,))

    def close(self) -> None:
        for process in self.workers:
            process.close()
        self.connection.close()


def run(server: EmbeddedPostgres, encoder: OnnxEncoder, seed: int, seconds: float) -> tuple[int, list[str]]:
    """Hammer a fresh database; edits, and what is stale at rest."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE hammer_{seed}")
    url = server.url(f"hammer_{seed}")
    with psycopg.connect(url, autocommit=True) as connection, ExitStack() as stack:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("CREATE TABLE docs (id int PRIMARY KEY, body text)")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stage = Stage(url, folder, seed)
        stack.callback(stage.close)
        until("the worker has begun", lambda: exists(connection, "docs_embedding"))
        with hammers(url, 200, writers=8) as struck:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                until("it has written", partial(has_written, connection, last_fence(connection)))
                stage.befall()
        until("everything is fresh", lambda: connection.execute(AT_REST).fetchone() == (True,), 180)
        print(f"  {sum(struck):,} strikes, {', '.join(stage.befell)}", flush=True)
        return sum(struck), stale(connection, encoder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--version", type=int, default=18, choices=[16, 18])
    arguments = parser.parse_args()
    encoder = models_in(exported(), device="cpu").encoder(MODEL)
    wrong = 0
    with EmbeddedPostgres(arguments.version, fsync="off") as server:
        for seed in range(arguments.runs):
            _, found = run(server, encoder, seed, arguments.seconds)
            wrong += bool(found)
            print(f"run {seed + 1} on {arguments.version}: {found or 'nothing wrong'}", flush=True)
    print(f"{arguments.runs} runs on {arguments.version}, {wrong} of them with something wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
