"""Behind pgbouncer: a pool in transaction mode is refused and keeps nothing of ours, one in session mode is
used."""

import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from freshvec import pooler
from freshvec.db import connect
from freshvec.embedded import EmbeddedPostgres
from freshvec.errors import DatabaseError
from tests.integration.sharing import is_fair
from tests.staleness import stale
from tests.support import (
    DOCS_SYNC,
    Connection,
    NullEncoder,
    config_toml,
    freshvec,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
    write_config,
)

PGBOUNCER = "/usr/sbin/pgbouncer"
Pooler = Callable[..., str]


def listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0


@contextmanager
def pgbouncer(server: EmbeddedPostgres, url: str, settings: dict[str, object]) -> Iterator[str]:
    """A pool before a database; the URL that leads through it."""
    folder = Path(mkdtemp(prefix="freshvec-pool-", dir="/tmp"))
    database = url.split("/")[3].split("?")[0]
    given = {
        "listen_port": 6432,
        "unix_socket_dir": folder,
        "auth_type": "any",
        "server_login_retry": 1,
        **settings,
    }
    lines = [
        f"[databases]\n{database} = host={url.split('host=')[1]} user=postgres\n[pgbouncer]",
        *(f"{name} = {value}" for name, value in given.items()),
    ]
    Path(folder, "pgbouncer.ini").write_text("\n".join(lines) + "\n")
    folder.chmod(0o755)
    if server.user:  # it does not run as root
        shutil.chown(folder, server.user)
    with Path(folder, "log").open("wb") as log:
        process = subprocess.Popen(
            [PGBOUNCER, f"{folder}/pgbouncer.ini"], user=server.user, cwd="/", stdout=log, stderr=log
        )
    try:
        until("the pool listens", lambda: process.poll() is not None or listens(f"{folder}/.s.PGSQL.6432"))
        assert process.poll() is None, Path(folder, "log").read_text()
        yield f"postgresql://app:@/{database}?host={folder}&port=6432"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


@pytest.fixture
def pooled(server18: EmbeddedPostgres, url: str) -> Iterator[Pooler]:
    """Starts a pool before the test's database, with settings of pgbouncer's, and gives its URL."""
    if not Path(PGBOUNCER).exists():
        pytest.skip("there is no pooler to test with: `apt-get install pgbouncer`")
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(pgbouncer(server18, url, settings))


# Without those of extensions: they are there once something has loaded its library.
SETTINGS = "SELECT name, setting FROM pg_settings WHERE name NOT LIKE '%.%'"


def seen_by_clients(url: str, clients: int = 4) -> dict[int, set[tuple[str, str]]]:
    """All settings that clients of a pool find in that many sessions at once, by the session's process."""
    seen = {}
    with ExitStack() as stack:
        for _ in range(clients):
            client = stack.enter_context(
                psycopg.connect(url)
            )  # within a transaction, so it keeps its session
            (process,) = client.execute("SELECT pg_backend_pid()").fetchone() or (0,)
            seen[process] = {(name, setting) for name, setting in client.execute(SETTINGS)}
    return seen


def refused(url: str) -> DatabaseError:
    with pytest.raises(DatabaseError) as caught:
        connect(SecretStr(url), "test")
    return caught.value


@pytest.mark.parametrize(
    "settings",
    [
        {"pool_mode": "transaction"},
        {"pool_mode": "transaction", "server_round_robin": 1},
        {"pool_mode": "transaction", "default_pool_size": 1},
        {"pool_mode": "statement"},
    ],
    ids=lambda settings: " ".join(f"{name}={value}" for name, value in settings.items()),
)
def test_a_pool_that_shares_sessions_is_refused(pooled: Pooler, settings: dict[str, object]) -> None:
    url = pooled(**settings)
    for _ in range(10):  # with one session open, then with more
        error = refused(url)
        assert not error.retryable, error
        assert (error.operation, error.subject) == ("connect to", "the database")
        assert f"the pooler at {url.split('host=')[1].split('&')[0]}, port 6432" in error.problem
        assert "database.url" in error.remedy


def test_the_doctor_names_the_pool(pooled: Pooler, models_dir: Path, tmp_path: Path) -> None:
    path = write_config(
        tmp_path / "freshvec.toml", config_toml(pooled(pool_mode="transaction"), models_dir, DOCS_SYNC)
    )
    done = freshvec("doctor", "--quiet", "--config", str(path))
    assert done.returncode == 1
    assert "FAULT     database: the pooler at" in done.stdout


def test_a_busy_pool_is_refused_as_well(docs: Connection, pooled: Pooler) -> None:
    """Other clients take sessions between any two transactions of ours."""
    url = pooled(pool_mode="transaction", default_pool_size=4)
    stopping = threading.Event()

    def work() -> None:
        with psycopg.connect(url, autocommit=True) as client:
            while not stopping.is_set():
                client.execute("SELECT count(*) FROM docs", prepare=False)

    busy = [threading.Thread(target=work) for _ in range(6)]
    for thread in busy:
        thread.start()
    try:
        for _ in range(20):
            refused(url)
    finally:
        stopping.set()
        for thread in busy:
            thread.join()


class InStep(psycopg.Connection[tuple[Any, ...]]):
    """A client that does something of its own before each statement."""

    before: Callable[[], object]

    def execute(self, *given: Any, **more: Any) -> Any:
        self.before()
        return super().execute(*given, **more)


def test_a_pool_is_recognised_where_clients_keep_in_step(pooled: Pooler) -> None:
    """Others take the first one's session whenever the second one wants any, so that both find their own each
    time."""
    url = pooled(pool_mode="transaction", default_pool_size=2)
    with ExitStack() as stack:
        first, second = (stack.enter_context(closing(InStep.connect(url, autocommit=True))) for _ in "12")
        others = [stack.enter_context(closing(psycopg.connect(url))) for _ in "12"]
        first.before = lambda: None
        session = pooler.process_of(first)

        def release() -> None:
            for other in others:
                other.commit()

        def take() -> None:
            if not any(other.info.transaction_status for other in others):
                takers = [other for other in others if pooler.process_of(other) == session]
                assert takers, "one of two clients has one of two sessions"
                for other in set(others) - set(takers):
                    other.commit()

        first.before, second.before = release, take
        assert pooler.shares_sessions(first, lambda: second)


def test_nothing_of_ours_stays_in_a_pool_that_is_refused(pooled: Pooler) -> None:
    url = pooled(pool_mode="transaction")
    before = seen_by_clients(url)
    for _ in range(5):
        refused(url)
    after = seen_by_clients(url)
    assert len(before) == 4, "each client had a session"
    assert set(after) == set(before), "these are the same sessions"
    for process, settings in after.items():
        assert settings - before[process] == set()


def test_the_first_client_of_a_pool_leaves_nothing_either(url: str, pooled: Pooler) -> None:
    """A client that names itself and nothing else finds the same in a session that was opened for us."""
    untouched = next(iter(seen_by_clients(pooled(pool_mode="transaction"), 1).values()))
    through = pooled(pool_mode="transaction")
    refused(through)
    for found in seen_by_clients(through).values():
        assert found == untouched


@pytest.mark.parametrize("command", ["plan", "apply", "run", "status", "verify"])
def test_each_command_says_so(
    tmp_path: Path, models_dir: Path, docs: Connection, pooled: Pooler, command: str
) -> None:
    through = pooled(pool_mode="transaction")
    config = write_config(tmp_path / "freshvec.toml", config_toml(through, models_dir, DOCS_SYNC))
    found = freshvec(command, "--config", str(config))
    assert found.returncode == 1
    assert "cannot connect to the database: the pooler at" in found.stderr
    assert "session mode" in found.stderr


def test_workers_that_share_are_known_by_their_sessions_behind_a_pool(
    url: str, docs: Connection, pooled: Pooler
) -> None:
    """What the pool announces as the server's process is a number of its own, which nobody has."""
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 300) g")
    settings = settings_for(pooled(pool_mode="session"), sync_of("docs"), share=True)
    with running(settings, NullEncoder()) as first, running(settings, NullEncoder()) as second:
        workers = (first, second)
        until("each has its half", lambda: is_fair(docs, 2))
        for worker in workers:
            wait_fresh(worker)
        pipelines = [worker.keepers[0].pipeline for worker in workers]
        looked = docs.execute("SELECT clock_timestamp()").fetchone()
        later = "SELECT clock_timestamp() > %s + interval '4 s'"  # some looks of each
        until("a while has passed", lambda: docs.execute(later, looked).fetchone() == (True,))
        assert [worker.keepers[0].pipeline for worker in workers] == pipelines, "none was taken for dead"
        docs.execute("UPDATE docs SET body = body || ' edited'")
        until("the edits are embedded", lambda: not stale(docs, NullEncoder()))


def test_a_pool_in_session_mode_is_used_and_gets_its_sessions_back_clean(
    url: str, docs: Connection, pooled: Pooler
) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 300) g")
    through = pooled(pool_mode="session")
    before = next(iter(seen_by_clients(through, 1).values()))
    encoder = NullEncoder()
    with running(settings_for(through, sync_of("docs")), encoder) as worker:
        wait_fresh(worker)
        docs.execute("UPDATE docs SET body = body || ' edited'")
        wait_fresh(worker)
        until("the edits are embedded", lambda: not stale(docs, encoder))
        ours = {
            process
            for (process,) in docs.execute(
                "SELECT pid FROM pg_stat_activity"
                " WHERE application_name LIKE 'freshvec%' AND datname = current_database()"
            )
        }
        assert ours
    after = seen_by_clients(through, 12)
    assert ours & set(after), "some of these sessions were ours"
    for found in after.values():
        assert found == before
