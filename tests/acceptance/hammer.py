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
import time
from contextlib import ExitStack
from functools import partial
from itertools import count as numbers
from pathlib import Path

import psycopg

from freshvec.embedded import EmbeddedPostgres
from freshvec.encoding.encoder import OnnxEncoder
from tests.acceptance.hot_rows import Counter, Hammer, hammers, lost
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
