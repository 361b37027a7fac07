"""`python -m tests.acceptance.share_hammer [--workers 4] [--runs 10] [--seconds 60] [--version 18]
[--layout table]`: workers that share a sync, under hot rows and walks, while some are killed, stopped past
their takeover and woken, leave and come, lose their sessions, and the server is restarted; at rest no vector
may be another text's.

With `--queue-bytes 65536` the queue is full again and again, and given up for a walk.
"""

import argparse
import random
import re
import signal
import socket
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psycopg

from freshvec.embedded import EmbeddedPostgres
from freshvec.encoding.encoder import OnnxEncoder
from tests.acceptance.hammer import LAYOUTS, last_fence
from tests.acceptance.hot_rows import hammers
from tests.conftest import QUICK
from tests.exports import exported
from tests.staleness import stale
from tests.support import MODEL, Connection, WorkerProcess, config_toml, models_in, until, write_config

HOT, ROWS = 200, 3000  # the others are walked only
STOPPED_SECONDS = 5.0  # past every timeout
BEFALLS = {"kill": 3, "zombie": 3, "leave": 2, "cut": 2, "walk": 3}
AT_REST = "SELECT backlog = 0 AND backfill_done AND NOT rescan_waiting FROM freshvec.status"
BEGUN = "SELECT to_regclass('docs_embedding') IS NOT NULL"
SHARED_OUT = "SELECT sum(shards) = 64 AND count(*) FILTER (WHERE leads) = 1 FROM freshvec.workers"
MEMBERS_WHOLE = "SELECT * FROM freshvec.member"
MEMBERS = "SELECT worker FROM freshvec.workers"
CUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE application_name LIKE 'freshvec%' AND datname = current_database() ORDER BY random() LIMIT 1
"""
SESSIONS = """
SELECT a.pid, a.application_name, a.state, a.wait_event, now() - a.state_change AS since, left(a.query, 80),
       (SELECT array_agg(DISTINCT concat_ws(' ', l.classid, l.mode, l.granted)) FROM pg_locks AS l
         WHERE l.pid = a.pid AND l.locktype = 'advisory')
  FROM pg_stat_activity AS a WHERE a.application_name LIKE 'freshvec%'
"""
WALK = "INSERT INTO freshvec.rescan (sync, reason) VALUES ('docs', 'the hammer asks') RETURNING id"
COUNTED = """
SELECT rows_embedded, (SELECT count(*) FROM docs_embedded) FROM freshvec.sync
"""


@dataclass
class Company:
    """Workers that share one sync, and what befalls them."""

    server: EmbeddedPostgres
    database: str
    folder: Path
    choose: random.Random
    config: Path
    layout: str
    workers: list[WorkerProcess] = field(default_factory=list)
    befell: list[str] = field(default_factory=list)
    takeovers: list[float] = field(default_factory=list)  # seconds from a stop or a kill to the takeover
    wrong: list[str] = field(default_factory=list)

    def connect(self) -> Connection:
        return psycopg.connect(self.server.url(self.database), autocommit=True)

    def ask(self, query: str) -> list[tuple[object, ...]]:
        """On a connection of its own: the server may have been restarted since the last one."""
        with self.connect() as connection:
            return connection.execute(query.encode()).fetchall()

    def come(self) -> None:
        log = self.folder / f"worker-{len(list(self.folder.glob('worker-*.log')))}.log"
        self.workers.append(WorkerProcess(self.config, log=log, env={"FRESHVEC_DAEMON_SHARE": "true"}))

    def is_shared_out(self) -> bool:
        """Whether every worker that is here is a member, and every shard is somebody's."""
        members = {name for (name,) in self.ask(MEMBERS)}
        return members == set(map(_name, self.workers)) and self.ask(SHARED_OUT) == [(True,)]

    def any_of_these(self) -> str:
        (what,) = self.choose.choices([*BEFALLS], weights=[*BEFALLS.values()])
        return what

    def befall(self, what: str) -> None:
        self.befell.append(what)
        getattr(self, f"_{what}")()
        for worker in self.workers:
            if not worker.is_running:
                self.wrong.append(f"a worker ended by itself: {worker.output[-500:]}")

    def _kill(self) -> None:
        killed = self._any()
        killed.kill()
        self._is_taken_over(killed)
        self.come()

    def _zombie(self) -> None:
        """One is stopped, wherever it is in its work, and woken once others have taken over."""
        zombie, began = self._any(), time.monotonic()
        zombie.process.send_signal(signal.SIGSTOP)
        self._is_taken_over(zombie)
        time.sleep(max(0.0, STOPPED_SECONDS - (time.monotonic() - began)))
        self.workers.append(zombie)
        zombie.process.send_signal(signal.SIGCONT)

    def _leave(self) -> None:
        until("all have a share", self.is_shared_out)  # one that only begins knows no signal
        leaver = self._any()
        if code := leaver.stop():
            self.wrong.append(f"a worker left with {code}: {leaver.output[-500:]}")
        until("its shards are others'", self.is_shared_out)
        self.come()
        until("who has come has a share", self.is_shared_out)

    def _cut(self) -> None:
        self.ask(CUT)

    def _walk(self) -> None:
        self.ask(WALK)

    def _restart(self) -> None:
        self.server.run("pg_ctl", "-D", str(self.server.data), "-m", "immediate", "-w", "stop")
        self.server.start()

    def _any(self) -> WorkerProcess:
        return self.workers.pop(self.choose.randrange(len(self.workers)))

    def _is_taken_over(self, lost: WorkerProcess) -> None:
        """Wait until another has what was its own."""
        began = time.monotonic()
        until("its shards are others'", lambda: (_name(lost),) not in self.ask(MEMBERS))
        until("all shards are somebody's", lambda: self.ask(SHARED_OUT) == [(True,)])
        self.takeovers.append(time.monotonic() - began)

    def errors(self) -> Counter[str]:
        """What the workers complained of, without numbers."""
        logs = [path.read_text(errors="replace") for path in self.folder.glob("worker-*.log")]
        lines = [line for log in logs for line in log.splitlines() if "ERROR" in line or "Traceback" in line]
        return Counter(re.sub(r"[\d.:-]+", "…", line.partition("ERROR")[2] or line)[:160] for line in lines)

    def close(self) -> None:
        for process in self.workers:
            process.process.send_signal(signal.SIGCONT)
            process.close()


def _name(worker: WorkerProcess) -> str:
    return f"{socket.gethostname()}:{worker.process.pid}"


def company(
    server: EmbeddedPostgres, seed: int, folder: Path, layout: str = "table", *, queue_bytes: int = 2**30
) -> Company:
    """A fresh database whose table is to be embedded, and nobody yet to do it."""
    database = f"share_{seed}"
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database}".encode())
    with psycopg.connect(server.url(database), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute("CREATE TABLE docs (id int PRIMARY KEY, body text)")
        cold = "INSERT INTO docs SELECT g, 'cold ' || g %% 50 FROM generate_series(%s::int, %s) g"
        connection.execute(cold, (HOT, ROWS))
    sync = LAYOUTS[layout][0] + f"queue_bytes = {queue_bytes}\n"
    config = write_config(folder / "freshvec.toml", config_toml(server.url(database), exported(), sync))
    return Company(server, database, folder, random.Random(seed), config, layout)


def hammer(shared: Company, encoder: OnnxEncoder, workers: int, seconds: float, *, restart: bool) -> str:
    """Hammer it; what is wrong at rest is noted. Gives what happened, for people."""
    url = shared.server.url(shared.database)
    with hammers(url, HOT, writers=8, rest=0.002, outlives_restarts=True) as struck:
        for _ in range(workers):
            shared.come()
        until("a worker has begun", lambda: shared.ask(BEGUN) == [(True,)])
        begin = time.monotonic()
        restart_due = begin + seconds / 2 if restart else float("inf")
        while time.monotonic() < begin + seconds:
            until("they have written", partial(_has_written, shared, _last_fence(shared)))
            is_due = time.monotonic() >= restart_due
            restart_due = float("inf") if is_due else restart_due
            shared.befall("restart" if is_due else shared.any_of_these())
    ended = time.monotonic()
    until("everything is written", lambda: shared.ask(AT_REST) == [(True,)], 180)
    rested = time.monotonic() - ended
    with shared.connect() as connection:
        shared.wrong += stale(connection, encoder, LAYOUTS[shared.layout][1])
    ((counted, there),) = shared.ask(COUNTED)
    times = f"takeovers in up to {max(shared.takeovers, default=0):.1f} s"
    rest = f"at rest after {rested:.1f} s, {counted} counted of {there}"
    return f"{sum(struck):,} strikes, {', '.join(shared.befell)}; {times}; {rest}"


def _last_fence(shared: Company) -> int:
    with suppress(psycopg.OperationalError), shared.connect() as connection:
        return last_fence(connection)
    return 0


def _has_written(shared: Company, after: int) -> bool:
    return _last_fence(shared) > after + 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--version", type=int, default=18, choices=[16, 18])
    parser.add_argument("--layout", default="table", choices=list(LAYOUTS))
    parser.add_argument("--queue-bytes", type=int, default=2**30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--logs", type=Path, help="a folder in which the workers' logs stay")
    arguments = parser.parse_args()
    encoder = models_in(exported(), device="cpu").encoder(MODEL)
    bad = 0
    with EmbeddedPostgres(arguments.version, **QUICK) as server:
        for seed in range(arguments.seed, arguments.seed + arguments.runs):
            folder = Path(tempfile.mkdtemp(prefix=f"share-{seed}-", dir=arguments.logs))
            shared = company(server, seed, folder, arguments.layout, queue_bytes=arguments.queue_bytes)
            try:
                told = hammer(shared, encoder, arguments.workers, arguments.seconds, restart=True)
            except AssertionError as error:
                shared.wrong.append(f"{error}; {shared.befell}; {shared.ask(MEMBERS_WHOLE)}")
                shared.wrong += map(str, shared.ask(SESSIONS))
                told = "not ended"
            finally:
                shared.close()
                for message, times in shared.errors().most_common(8):
                    print(f"  {times} times: {message}")
            bad += bool(shared.wrong)
            print(f"run {seed} on {arguments.version}: {shared.wrong or 'nothing wrong'}; {told}", flush=True)
    print(f"{arguments.runs} runs on {arguments.version}, {bad} of them with something wrong")
    return int(bad > 0)


if __name__ == "__main__":
    raise SystemExit(main())
