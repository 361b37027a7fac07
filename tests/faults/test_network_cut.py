"""A worker that shares a sync is cut off: in a network of its own, whose link to the server is taken down."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import psycopg
import pytest

from freshvec.embedded import EmbeddedPostgres
from freshvec.encoding.encoder import OnnxEncoder
from tests.acceptance.hot_rows import hammers
from tests.acceptance.share_hammer import AT_REST
from tests.conftest import QUICK
from tests.staleness import stale
from tests.support import DOCS_SYNC, Connection, WorkerProcess, config_toml, until, write_config

HOT, COLD = 100, 400
SHARING = {"FRESHVEC_DAEMON_SHARE": "true"}
SHARED_BY = "SELECT count(*) FROM freshvec.workers HAVING sum(shards) = 64"
TAKEOVER_SECONDS = 5.0


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a link that can be cut needs root; `ip {' '.join(arguments)}` says: {done.stderr}")


class Link:
    """From this machine to a network of its own, where `space` is what its processes are in."""

    def __init__(self, undo: ExitStack) -> None:
        number = os.getpid() % 2**14  # so that several runs of the tests have each a network of 4 addresses
        self.network = IPv4Network((int(IPv4Address("10.213.0.0")) + 4 * number, 30))
        self.address, its_address = self.network.hosts()
        self.space, self._here, there = f"freshvec{number}", f"fv{number}a", f"fv{number}b"
        ip("netns", "add", self.space)
        undo.callback(subprocess.run, ["ip", "netns", "del", self.space])
        ip("link", "add", self._here, "type", "veth", "peer", "name", there, "netns", self.space)
        undo.callback(subprocess.run, ["ip", "link", "del", self._here])
        ip("addr", "add", f"{self.address}/30", "dev", self._here)
        ip("-n", self.space, "addr", "add", f"{its_address}/30", "dev", there)
        ip("-n", self.space, "link", "set", there, "up")
        self.mend()

    def cut(self) -> None:
        ip("link", "set", self._here, "down")

    def mend(self) -> None:
        ip("link", "set", self._here, "up")


@pytest.fixture
def link() -> Iterator[Link]:
    if shutil.which("ip") is None:
        pytest.skip("a link that can be cut needs `ip`: `apt-get install iproute2`")
    with ExitStack() as undo:
        yield Link(undo)


@pytest.fixture
def server(link: Link) -> Iterator[EmbeddedPostgres]:
    """A server that is reached over the link as well."""
    with EmbeddedPostgres(18, listen_addresses=str(link.address), **QUICK) as server:
        with (server.data / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {link.network} trust\n")
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("CREATE EXTENSION vector")
            connection.execute("CREATE TABLE docs (id int PRIMARY KEY, body text)")
            cold = "INSERT INTO docs SELECT g, 'cold ' || g FROM generate_series(%s::int, %s) g"
            connection.execute(cold, (HOT, HOT + COLD))
        yield server


def is_shared_by(connection: Connection, workers: int) -> bool:
    return connection.execute(SHARED_BY).fetchone() == (workers,)


def test_what_a_worker_had_is_anothers_soon_after_it_is_cut_off(
    link: Link, server: EmbeddedPostgres, models_dir: Path, encoder: OnnxEncoder, tmp_path: Path
) -> None:
    far = f"postgresql://postgres@{link.address}/postgres"
    inside = ("ip", "netns", "exec", link.space)
    with psycopg.connect(server.url(), autocommit=True) as connection, ExitStack() as stack:
        for name, url, prefix in (("near", server.url(), ()), ("far", far, inside)):
            config = write_config(tmp_path / f"{name}.toml", config_toml(url, models_dir, DOCS_SYNC))
            worker = WorkerProcess(config, log=tmp_path / f"{name}.log", env=SHARING, prefix=prefix)
            stack.callback(worker.close)
            if name == "near":
                until("the first has it all", lambda: _applied(connection) and is_shared_by(connection, 1))
        until("both share it", lambda: is_shared_by(connection, 2))
        with hammers(server.url(), HOT, rest=0.005):
            until("both have written", lambda: _have_written(connection, 2))
            link.cut()
            began = time.monotonic()
            until("the other has taken over", lambda: is_shared_by(connection, 1))
            assert time.monotonic() - began < TAKEOVER_SECONDS
            link.mend()
            until("it has its share again", lambda: is_shared_by(connection, 2))
        until("everything is fresh", lambda: connection.execute(AT_REST).fetchone() == (True,))
        assert stale(connection, encoder) == []


def _applied(connection: Connection) -> bool:
    return connection.execute("SELECT to_regclass('freshvec.workers') IS NOT NULL").fetchone() == (True,)


def _have_written(connection: Connection, workers: int) -> bool:
    busy = "SELECT count(*) FROM freshvec.workers WHERE rows_per_second > 0"
    return connection.execute(busy).fetchone() == (workers,)
