"""`--on ray`: two nodes on this machine, one of which goes; and a driver that goes."""

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from freshvec.encoding.encoder import OnnxEncoder
from tests.staleness import stale
from tests.support import (
    DOCS_SYNC,
    Connection,
    WorkerProcess,
    config_toml,
    count,
    exists,
    free_port,
    freshvec,
    until,
    write_config,
)

# Before it is imported, here and in what is started from here: reports to nobody, and the loopback address.
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
cluster_utils = pytest.importorskip(
    "ray.cluster_utils", reason="Ray is not installed: `make test` has it, or pip install 'freshvec[ray]'"
)

SECRET = "geheimnis"
NODE = {"num_cpus": 2, "object_store_memory": 80 * 2**20, "node_ip_address": "127.0.0.1"}
FRESH = "SELECT backlog = 0 AND coverage = 1 AND backfill_done FROM freshvec.status WHERE sync = 'docs'"
FILL = "INSERT INTO docs SELECT g, 'text number ' || g FROM generate_series(1, %s) g"
OURS = "pg_stat_activity WHERE application_name LIKE 'freshvec%'"


class Cluster:
    """Two nodes; the first has the head of Ray, too."""

    def __init__(self, folder: str) -> None:
        head = {**NODE, "include_dashboard": False, "temp_dir": folder}
        self.folder = Path(folder)
        self._cluster: Any = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
        self.address = str(self._cluster.address)
        self.add()

    def add(self) -> None:
        self._second = self._cluster.add_node(**NODE)

    def remove(self) -> None:
        """The second node, with all that runs on it, at once."""
        self._cluster.remove_node(self._second, allow_graceful=False)

    def options(self, workers: int = 2) -> tuple[str, ...]:
        return ("--on", "ray", "--ray-address", self.address, "--workers", str(workers))

    def close(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # Ray's sockets want a short path
    Path(tempfile.gettempdir(), "ray").mkdir(exist_ok=True)  # which its class for tests takes for granted
    made = Cluster(folder)
    yield made
    made.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def config(url: str, docs: Connection, models_dir: Path, tmp_path: Path) -> Path:
    secret = url.replace("postgres:@", f"postgres:{SECRET}@")
    assert SECRET in secret
    toml = config_toml(secret, models_dir, DOCS_SYNC, 'page_rows = 50\nthreads = 1\nlog_format = "json"')
    return write_config(tmp_path / "freshvec.toml", toml)


def is_fresh(docs: Connection) -> bool:
    return exists(docs, "freshvec.status") and docs.execute(FRESH).fetchone() == (True,)


def messages(output: str) -> list[str]:
    return [json.loads(line)["message"] for line in output.splitlines() if line.startswith("{")]


def told(folder: Path) -> bytes:
    """All that Ray writes, and the command lines and variables of all processes."""
    logs = b"".join(path.read_bytes() for path in folder.rglob("logs/*") if path.is_file())
    shown = [logs]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name = (process / "cmdline").read_bytes()
            shown += [name, (process / "environ").read_bytes() if b"ray" in name else b""]
        except OSError:
            continue  # it has ended
    return b"".join(shown)


def test_a_backfill_on_two_nodes(
    cluster: Cluster, config: Path, docs: Connection, encoder: OnnxEncoder
) -> None:
    docs.execute(FILL, (200,))
    done = freshvec("backfill", *cluster.options(), "--config", str(config))
    assert done.returncode == 0, done.stderr
    assert stale(docs, encoder) == []
    said = messages(done.stderr)
    assert said[-1].startswith("docs: every row is fresh; ")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {"w0", "w1"} >= {line["worker"] for line in lines if "worker" in line} >= {"w0"}
    assert SECRET not in done.stderr
    assert SECRET.encode() not in told(cluster.folder)


def test_a_run_outlives_a_node_and_ends_cleanly(
    cluster: Cluster,
    config: Path,
    docs: Connection,
    encoder: OnnxEncoder,
    workers: Callable[..., WorkerProcess],
) -> None:
    docs.execute(FILL, (3000,))
    port = free_port()
    page = {"FRESHVEC_WEB_ADDRESS": f"127.0.0.1:{port}"}
    process = workers(config, "run", *cluster.options(), env=page)
    until("both run", lambda: "2 workers run" in messages(process.output))
    until("it is amid the backfill", lambda: exists(docs, "docs_embedding") and count(docs, "docs_embedding"))
    try:
        cluster.remove()
        docs.execute("UPDATE docs SET body = body || ' edited' WHERE id % 7 = 0")
        until("every row is fresh", lambda: is_fresh(docs))
        assert stale(docs, encoder) == []
        until("the other is begun again", lambda: running(port) == 2)
    finally:
        cluster.add()
    docs.execute("UPDATE docs SET body = 'later' WHERE id = 1")
    until("edits are", lambda: is_fresh(docs) and not stale(docs, encoder))
    with urlopen(f"http://127.0.0.1:{port}/readyz") as answer:
        assert answer.read() == b"ready\n"
    assert process.stop() == 0, process.output
    assert count(docs, OURS) == 0, "they wrote what they had read, and ended"
    assert SECRET not in process.output
    assert "Traceback" not in process.output
    assert SECRET.encode() not in told(cluster.folder)


def running(port: int) -> int:
    """How many workers the metrics tell of."""
    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    return int(float(text.split("\nfreshvec_workers ")[1].split()[0]))


def test_a_driver_that_is_killed_leaves_no_worker_behind(
    cluster: Cluster, config: Path, docs: Connection, workers: Callable[..., WorkerProcess]
) -> None:
    docs.execute(FILL, (20,))
    process = workers(config, "run", *cluster.options())
    until("the backfill is done", lambda: is_fresh(docs))
    assert count(docs, OURS) > 0
    process.kill()
    until("their sessions have ended", lambda: count(docs, OURS) == 0, seconds=60)


def test_where_ray_is_not(config: Path) -> None:
    port = free_port()
    nowhere = freshvec("run", "--on", "ray", "--ray-address", f"127.0.0.1:{port}", "--config", str(config))
    assert nowhere.returncode == 1
    assert "cannot reach Ray at 127.0.0.1:" in nowhere.stderr
    other = freshvec("run", "--on", "spark", "--config", str(config))
    assert (other.returncode, "write ray" in other.stderr) == (2, True)
    client = freshvec("run", "--on", "ray", "--ray-address", "ray://10.0.0.1:10001", "--config", str(config))
    assert (client.returncode, "write host:port" in client.stderr) == (2, True)


def test_a_ray_of_its_own_listens_to_this_machine_alone(
    config: Path, docs: Connection, workers: Callable[..., WorkerProcess]
) -> None:
    docs.execute(FILL, (20,))
    process = workers(config, "run", "--on", "ray", env={"RAY_ADDRESS": ""})
    until("the backfill is done", lambda: is_fresh(docs))
    ours = {str(process.process.pid)} | descendants(process.process.pid)
    assert len(ours) > 3, "Ray's, too"
    assert {address for address in listening(ours) if not address.startswith("127.")} == set()
    assert process.stop() == 0
    assert "Traceback" not in process.output
    until("Ray's have ended", lambda: not any(Path(f"/proc/{pid}").exists() for pid in ours))


def descendants(pid: int) -> set[str]:
    """The processes that a process has started, and those that they have."""
    found: set[str] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found |= {child} | descendants(int(child))
    return found


def listening(pids: set[str]) -> set[str]:
    """The IPv4 and IPv6 addresses at which these processes listen."""
    sockets = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                sockets.add(str(descriptor.readlink()))
            except OSError:
                continue  # it has ended, or was closed
    addresses = set()
    for family, table in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in sockets:
                raw = bytes.fromhex(words[1].split(":")[0])
                packed = b"".join(raw[place : place + 4][::-1] for place in range(0, len(raw), 4))
                addresses.add(socket.inet_ntop(family, packed).removeprefix("::ffff:"))
    return addresses
