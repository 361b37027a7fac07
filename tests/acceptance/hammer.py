"""`python -m tests.acceptance.hammer [--runs 10] [--seconds 60] [--version 18] [--layout table]`: hot rows,
and workers that are killed, stopped past their takeover and woken; at rest no vector may be another text's.
With `--layout column` vectors lie in the table itself, whose other column is counted up meanwhile: nothing of
that may be lost, and no statement of the application's may fail by a deadlock.

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
from tests.staleness import EVERY_ROW, EVERY_ROW_CUT, EVERY_ROW_IN_COLUMN, stale
from tests.support import (
    DOCS_SYNC,
    MODEL,
    Connection,
    WorkerProcess,
    config_toml,
    exists,
    models_in,
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


_COUNTED = 20  # rows beyond the others that are never deleted, and whose `hits` are counted up


class Counter(Hammer):
    """The same, with a column beside text and vector that is counted up: also in transactions that hold rows
    for a while, and take them in an order that is not ours."""

    def __init__(self, connection: Connection, seed: int, rows: int) -> None:
        super().__init__(connection, seed, rows)
        self.hits = 0

    def strike(self) -> None:
        if self._choose.random() < 0.7:
            super().strike()
            return
        rows = [self._rows + self._choose.randrange(_COUNTED) for _ in range(2)]
        if self._choose.random() < 0.3:
            self.edit(rows[0], self._choose.choice(WORDS) + str(self._choose.random()))
        with self._connection.transaction():
            for row in sorted(set(rows), reverse=True):
                self._execute("UPDATE docs SET hits = hits + 1 WHERE id = %s", (row,))
                self._execute("SELECT pg_sleep(%s)", (self._choose.choice([0, 0, 0.01, 0.1]),))
        self.hits += len(set(rows))

    @staticmethod
    def prepare(connection: Connection, rows: int) -> None:
        connection.execute("ALTER TABLE docs ADD COLUMN hits int NOT NULL DEFAULT 0")
        counted = "INSERT INTO docs SELECT g, 'counted ' || g FROM generate_series(%s::int, %s::int) g"
        connection.execute(counted, (rows, rows + _COUNTED - 1))


@contextmanager
def hammers(
    url: str,
    rows: int,
    writers: int = 4,
    rest: float = 0.0,
    kind: type[Hammer] = Hammer,
    used: list[Hammer] | None = None,
    outlives_restarts: bool = False,
) -> Iterator[list[int]]:
    """Sessions that write all the while, with a rest after each strike; how often each has struck is known at
    the end. What they were is put into `used`. Raises what a statement of theirs raised, but for the end of a
    session where they outlive the server's restarts."""
    over, struck = threading.Event(), [0] * writers
    raised: list[BaseException] = []

    def write(seed: int) -> None:
        while not over.is_set():
            try:
                strike(seed)
            except psycopg.OperationalError as error:
                if not outlives_restarts:
                    raised.append(error)
                    return
                over.wait(0.1)
            except BaseException as error:
                raised.append(error)
                return

    def strike(seed: int) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            hammer = kind(connection, seed, rows)
            if used is not None:
                used.append(hammer)
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
    if raised:
        raise raised[0]


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

    def __init__(
        self, url: str, folder: Path, seed: int, models: Path | None = None, sync: str = DOCS_SYNC
    ) -> None:
        self.config = write_config(folder / "freshvec.toml", config_toml(url, models or exported(), sync))
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


COLUMN_SYNC = DOCS_SYNC + 'target = { column = "embedding" }\n'
CUT_SYNC = DOCS_SYNC + 'chunk = "auto"\n'
LAYOUTS = {
    "table": (DOCS_SYNC, EVERY_ROW),
    "column": (COLUMN_SYNC, EVERY_ROW_IN_COLUMN),
    "chunks": (CUT_SYNC, EVERY_ROW_CUT),
}


def lost(connection: Connection, used: list[Hammer]) -> list[str]:
    """Whether less was counted up than was asked for."""
    wanted = sum(hammer.hits for hammer in used if isinstance(hammer, Counter))
    (has,) = connection.execute("SELECT sum(hits) FROM docs").fetchone() or (0,)
    return [] if has == wanted else [f"{wanted} hits, {has} of them there"]


def run(
    server: EmbeddedPostgres, encoder: OnnxEncoder, seed: int, seconds: float, layout: str
) -> tuple[int, list[str]]:
    """Hammer a fresh database; edits, and what is stale at rest."""
    in_column, (sync, every_row) = layout == "column", LAYOUTS[layout]
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE hammer_{seed}")
    url = server.url(f"hammer_{seed}")
    with psycopg.connect(url, autocommit=True) as connection, ExitStack() as stack:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("CREATE TABLE docs (id int PRIMARY KEY, body text)")
        if in_column:
            Counter.prepare(connection, 200)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stage = Stage(url, folder, seed, sync=sync)
        stack.callback(stage.close)
        until("the worker has begun", lambda: exists(connection, "docs_embedding"))
        used: list[Hammer] = []
        kind = Counter if in_column else Hammer
        with hammers(url, 200, writers=8, kind=kind, used=used) as struck:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                until("it has written", partial(has_written, connection, last_fence(connection)))
                stage.befall()
        until("everything is fresh", lambda: connection.execute(AT_REST).fetchone() == (True,), 180)
        print(f"  {sum(struck):,} strikes, {', '.join(stage.befell)}", flush=True)
        wrong = lost(connection, used) if in_column else []
        return sum(struck), wrong + stale(connection, encoder, every_row)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--version", type=int, default=18, choices=[16, 18])
    parser.add_argument("--layout", default="table", choices=list(LAYOUTS))
    arguments = parser.parse_args()
    encoder = models_in(exported(), device="cpu").encoder(MODEL)
    wrong = 0
    with EmbeddedPostgres(arguments.version, fsync="off") as server:
        for seed in range(arguments.runs):
            _, found = run(server, encoder, seed, arguments.seconds, arguments.layout)
            wrong += bool(found)
            print(f"run {seed + 1} on {arguments.version}: {found or 'nothing wrong'}", flush=True)
    print(f"{arguments.runs} runs on {arguments.version}, {wrong} of them with something wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
