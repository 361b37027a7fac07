"""Whatever passes by itself is waited for: the worker never ends, and all is fresh afterwards."""

import os
import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Self

import psycopg
import pytest
from pydantic import SecretStr

from freshvec.db import connect
from freshvec.embedded import EmbeddedPostgres
from tests.staleness import stale
from tests.standby import Standby, server_with_docs
from tests.support import Connection, NullEncoder, running, settings_for, sync_of, until, wait_fresh


def ends_fresh(url: str, encoder: NullEncoder, what: str, began: float) -> None:
    """Until nothing is stale; its time is printed."""

    def is_fresh() -> bool:
        assert any(thread.name == "worker" for thread in threading.enumerate()), "the worker has ended"
        with psycopg.connect(url) as connection:
            (there,) = connection.execute("SELECT to_regclass('docs_embedding')").fetchone() or (None,)
            return there is not None and stale(connection, encoder) == []

    until(f"all is fresh after {what}", is_fresh)
    print(f"{what}: fresh after {time.monotonic() - began:.1f} s")


def test_a_standby_is_waited_for_until_it_is_promoted(log: list[str]) -> None:
    encoder = NullEncoder()
    with (
        server_with_docs() as primary,
        Standby(primary) as standby,
        running(settings_for(standby.url(), sync_of("docs")), encoder),
    ):
        with psycopg.connect(primary.url(), autocommit=True) as watching:
            watching.execute("INSERT INTO docs VALUES (1000, 'written before the promotion')")
        until("it has tried three times", lambda: sum("next attempt in" in line for line in log) >= 3)
        assert any(thread.name == "worker" for thread in threading.enumerate())
        began = time.monotonic()
        standby.promote()
        ends_fresh(standby.url(), encoder, "a promotion", began)


def test_a_failover_goes_on_at_the_standby() -> None:
    encoder = NullEncoder(seconds_a_batch=0.01)
    with server_with_docs() as primary, Standby(primary) as standby:
        hosts = primary.url().split("host=")[1]
        url = (
            f"postgresql://postgres:@/postgres?host={hosts},{standby.folder}"
            "&target_session_attrs=read-write&connect_timeout=5"
        )
        with running(settings_for(url, sync_of("docs")), encoder) as worker:
            wait_fresh(worker)
            with psycopg.connect(primary.url(), autocommit=True) as writing:
                writing.execute("UPDATE docs SET body = body || ' edited'")
                until(
                    "the standby has it",
                    lambda: (
                        psycopg.connect(standby.url())
                        .execute("SELECT count(*) FROM docs WHERE body LIKE '%edited'")
                        .fetchone()
                        == (300,)
                    ),
                )
            began = time.monotonic()
            primary.run("pg_ctl", "-D", str(primary.data), "-m", "immediate", "-w", "stop")
            standby.promote()
            with psycopg.connect(standby.url(), autocommit=True) as writing:
                writing.execute("UPDATE docs SET body = 'after the failover' WHERE id <= 50")
            ends_fresh(standby.url(), encoder, "a failover", began)


def test_settings_of_the_role_reach_nothing_of_ours(url: str, docs: Connection) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 300) g")
    role = f"narrow_{os.getpid()}"
    docs.execute(f"CREATE ROLE {role} LOGIN SUPERUSER")
    for setting, value in {
        "statement_timeout": "'1ms'",
        "default_transaction_isolation": "serializable",
        "default_transaction_read_only": "on",
        "default_transaction_deferrable": "on",
        "idle_session_timeout": "'1ms'",
        "idle_in_transaction_session_timeout": "'1ms'",
        "transaction_timeout": "'1ms'",
        "lock_timeout": "'1ms'",
        "exit_on_error": "on",
    }.items():
        docs.execute(f"ALTER ROLE {role} SET {setting} = {value}")
    encoder = NullEncoder()
    try:
        with running(
            settings_for(url.replace("postgres:@", f"{role}:@"), sync_of("docs")), encoder
        ) as worker:
            wait_fresh(worker)
            first = worker.keepers[0].pipeline
            began = time.monotonic()
            docs.execute("UPDATE docs SET body = body || ' edited'")
            ends_fresh(url, encoder, "settings of the role", began)
            assert worker.keepers[0].pipeline is first, "no session of ours was cut off"
            assert worker.keepers[0].last_error is None
    finally:
        docs.execute(f"DROP OWNED BY {role} CASCADE")
        docs.execute(f"DROP ROLE {role}")


class Proxy:
    """Passes connections on to a server's socket, or swallows what they send, as a broken network does."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.swallows = threading.Event()
        self.waiting = 0  # connections whose bytes are swallowed
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        others: dict[socket.socket, socket.socket] = {}
        given: list[socket.socket] = []  # those of the worker
        while not self._stopping.is_set():
            watched = [self._listening] if self.swallows.is_set() else [self._listening, *others]
            if self.swallows.is_set():
                self.waiting = len(select.select([one for one in given if one in others], [], [], 0)[0])
            for ready in select.select(watched, [], [], 0.05)[0]:
                if ready is self._listening:
                    inner, _ = self._listening.accept()
                    outer = socket.socket(socket.AF_UNIX)
                    outer.connect(self._target)
                    others |= {inner: outer, outer: inner}
                    given.append(inner)
                    continue
                if ready not in others:
                    continue
                try:
                    read = ready.recv(65536)
                    others[ready].sendall(read)
                except OSError:
                    read = b""
                if not read:
                    other = others.pop(ready)
                    del others[other]
                    ready.close()
                    other.close()
        for left in (self._listening, *others):
            left.close()


def test_a_silent_network_is_given_up_after_15_seconds(url: str) -> None:
    with connect(SecretStr(url), "test") as connection:
        found = connection.info.get_parameters()
    assert found["tcp_user_timeout"] == "15000"


def test_a_network_that_swallows_everything_is_left_behind(url: str, docs: Connection) -> None:
    """The worker's queries go unanswered until its sessions are ended."""
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 300) g")
    folder, database = url.split("host=")[1], url.split("/")[3].split("?")[0]
    encoder = NullEncoder()
    with Proxy(f"{folder}/.s.PGSQL.5432") as proxy:
        through = f"postgresql://postgres:@127.0.0.1:{proxy.port}/{database}?connect_timeout=3"
        settings = settings_for(through, sync_of("docs"), shutdown_seconds=2, sweep_seconds=1)
        with running(settings, encoder) as worker:
            wait_fresh(worker)
            proxy.swallows.set()
            docs.execute("UPDATE docs SET body = body || ' edited'")
            until("several sessions ask in vain", lambda: proxy.waiting >= 2)
            began = time.monotonic()
            docs.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'freshvec %' AND datname = current_database()"
            )
            proxy.swallows.clear()
            ends_fresh(url, encoder, "a network that swallowed everything", began)


@pytest.fixture
def small_disk(server18: EmbeddedPostgres) -> Iterator[Path]:
    """A file system of 16 MB for a tablespace."""
    folder = Path(mkdtemp(prefix="freshvec-disk-", dir="/tmp"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        folder.rmdir()
        pytest.skip(f"no small file system may be mounted here: {mounted.stderr.decode().strip()}")
    try:
        if server18.user:
            shutil.chown(folder, server18.user)
        yield folder
    finally:
        # A process of the server may have a file open for a moment more.
        umount = partial(subprocess.run, ["umount", str(folder)], capture_output=True, check=False)
        until("nobody uses the small file system", lambda: umount().returncode == 0)
        folder.rmdir()


def test_a_full_disk_is_waited_for(url: str, docs: Connection, small_disk: Path) -> None:
    space = f"small_{os.getpid()}"
    docs.execute(f"CREATE TABLESPACE {space} LOCATION '{small_disk}'")
    encoder = NullEncoder()
    try:
        with running(settings_for(url, sync_of("docs")), encoder) as worker:
            wait_fresh(worker)
            docs.execute(f"ALTER TABLE docs_embedding SET TABLESPACE {space}")
            docs.execute(f"CREATE TABLE ballast (body text) TABLESPACE {space}")
            with pytest.raises(psycopg.errors.DiskFull):
                docs.execute(
                    "INSERT INTO ballast SELECT repeat(md5(g::text), 60) FROM generate_series(1, 20000) g"
                )
            docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 5000) g")
            until("it says so", lambda: "space" in (worker.keepers[0].last_error or ""))
            began = time.monotonic()
            docs.execute("DROP TABLE ballast")
            ends_fresh(url, encoder, "a full disk", began)
    finally:
        docs.execute("DROP TABLE IF EXISTS docs_embedding, ballast CASCADE")
        docs.execute(f"DROP TABLESPACE {space}")
