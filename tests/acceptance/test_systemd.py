"""The units, and what the worker tells its supervisor."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from freshvec import config, data
from freshvec.worker.worker import Worker
from tests.support import (
    DOCS_SYNC,
    Connection,
    NullEncoder,
    WorkerProcess,
    config_toml,
    count,
    exists,
    settings_for,
    sync_of,
    until,
    write_config,
)

UNITS = ("freshvec.service", "freshvec-backfill.service", "freshvec@.service", "freshvec-folder@.service")
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine"
)


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_nothing_to_complain_about(unit: str, tmp_path: Path) -> None:
    text = (data.folder("systemd") / unit).read_text()
    command = shutil.which("true") or "/bin/true"
    (tmp_path / unit).write_text(text.replace("/opt/freshvec/bin/freshvec", command))
    dropin = tmp_path / f"{unit}.d"
    dropin.mkdir()
    for name in ("gpu.conf", "serve.conf"):
        shutil.copy(data.folder("systemd") / name, dropin)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_hardened(unit: str) -> None:
    path = data.folder("systemd") / unit
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-300:]


def test_the_example_configuration_is_valid() -> None:
    assert config.load(data.folder("systemd") / "freshvec.toml.example").sync[0].name == "articles"


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as received:
        received.bind(str(tmp_path / "notify"))
        received.settimeout(60)
        yield received


def wait_for(supervisor: socket.socket, begin: str, part: str = "") -> str:
    """The first message that begins so and has that part; every other one is passed over."""
    heard = {""}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        message = supervisor.recv(4000).decode()
        heard.add(message)
        if message.startswith(begin) and part in message:
            return message
    raise AssertionError(f"no {begin}…{part} among {sorted(heard)}")


def without_url(models_dir: Path) -> str:
    """A configuration whose URL comes as a credential."""
    lines = config_toml("x", models_dir, DOCS_SYNC).splitlines()
    return "\n".join(line for line in lines if not line.startswith("url"))


def test_ready_means_listening_and_the_url_stays_secret(
    url: str,
    docs: Connection,
    models_dir: Path,
    tmp_path: Path,
    workers: Callable[..., WorkerProcess],
    supervisor: socket.socket,
) -> None:
    docs.execute("INSERT INTO docs VALUES (1, 'one')")
    secret = url.replace("postgres:@", "postgres:geheimnis@")
    (tmp_path / "database_url").write_text(secret + "\n")
    toml = without_url(models_dir)
    environment = {
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": "1000000",
        "CREDENTIALS_DIRECTORY": str(tmp_path),
        "FRESHVEC_DAEMON_LOG_LEVEL": "DEBUG",
    }
    process = workers(write_config(tmp_path / "freshvec.toml", toml), env=environment)
    assert supervisor.recv(1000).startswith(b"READY=1")
    assert count(docs, "pg_stat_activity WHERE application_name = 'freshvec listener'") == 1
    assert supervisor.recv(1000) == b"WATCHDOG=1"
    assert supervisor.recv(1000) == b"WATCHDOG=1"
    for file in ("cmdline", "environ"):
        assert b"geheimnis" not in Path(f"/proc/{process.process.pid}/{file}").read_bytes()
    assert process.stop() == 0
    messages: list[bytes] = []
    while not messages or messages[-1] != b"STOPPING=1":
        messages.append(supervisor.recv(1000))
    assert "geheimnis" not in process.output
    assert "Traceback" not in process.output


def test_not_ready_while_the_database_is_away_but_alive(
    url: str,
    docs: Connection,
    models_dir: Path,
    tmp_path: Path,
    workers: Callable[..., WorkerProcess],
    supervisor: socket.socket,
) -> None:
    """It waits for the server: not ready, but alive, or the watchdog would kill it for another's outage."""
    folder = tmp_path / "socket"
    (tmp_path / "database_url").write_text(url.split("?")[0] + f"?host={folder}")
    toml = without_url(models_dir)
    environment = {
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": "60000000",
        "CREDENTIALS_DIRECTORY": str(tmp_path),
    }
    process = workers(write_config(tmp_path / "freshvec.toml", toml), env=environment)
    first = [supervisor.recv(1000) for _ in range(6)]
    assert first.count(b"WATCHDOG=1") == 2
    assert first.count(b"EXTEND_TIMEOUT_USEC=180000000") == 2, "or systemd would end it after TimeoutStartSec"
    status = next(message for message in first if message.startswith(b"STATUS="))
    assert status.startswith(b"STATUS=waiting for the database: cannot connect")
    assert b"Check that Postgres runs" in status
    assert "next attempt in" in process.output
    folder.symlink_to(url.split("host=")[1])  # now the server is there
    wait_for(supervisor, "READY=1")
    docs.execute("INSERT INTO docs VALUES (1, 'one')")
    until("it works", lambda: exists(docs, "docs_embedding") and count(docs, "docs_embedding") == 1)
    assert process.stop() == 0


def test_the_units_say_what_operations_ask_for() -> None:
    service, once, *_ = ((data.folder("systemd") / unit).read_text().splitlines() for unit in UNITS)
    both = (
        "DynamicUser=yes",
        "StateDirectory=freshvec/state",
        "LoadCredential=database_url:/etc/freshvec/database_url",
        "MemoryDenyWriteExecute=yes",
        "ProcSubset=all",
        "LimitNOFILE=65536",
    )
    for line in both:
        assert line in service
        assert line in once
    for line in (
        "Type=notify",
        "NotifyAccess=main",
        "WatchdogSec=180",
        "Restart=on-failure",
        "RestartPreventExitStatus=2 78",
    ):
        assert line in service
    assert "Type=oneshot" in once
    for unit in (service, once):
        values = dict(line.split("=", 1) for line in unit if "=" in line and not line.startswith("#"))
        assert "ORT_DISABLE_TELEMETRY=1" in values["Environment"]
        assert float(values["TimeoutStopSec"]) > config.Daemon().shutdown_seconds
        assert "database_url" not in values["ExecStart"]


def test_the_status_line_tells_coverage_lag_and_faults(
    url: str,
    docs: Connection,
    models_dir: Path,
    tmp_path: Path,
    workers: Callable[..., WorkerProcess],
    supervisor: socket.socket,
) -> None:
    docs.execute("INSERT INTO docs VALUES (1, 'one')")
    both = DOCS_SYNC + DOCS_SYNC.replace('"docs"', '"gone"')
    path = write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, both))
    process = workers(
        path,
        env={
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
        },
    )
    told = wait_for(supervisor, "STATUS=gone: ", "docs 100%")
    assert "there is no such table" in told.split(";")[0], "trouble comes first"
    docs.execute("INSERT INTO docs VALUES (2, 'two')")
    wait_for(supervisor, "STATUS=gone: ", "ms (p99)")
    write_config(path, both.replace("columns", "colums"))
    process.process.send_signal(signal.SIGHUP)
    wait_for(supervisor, "STATUS=the file is not taken up: ", "docs 100%")
    write_config(path, config_toml(url, models_dir, DOCS_SYNC))
    process.process.send_signal(signal.SIGHUP)
    wait_for(supervisor, "RELOADING=1")
    wait_for(supervisor, "STATUS=docs 100%")
    assert process.stop() == 0


class Stuck:
    """A pipeline without a sign of life."""

    failure = None

    def beat(self) -> float:
        return 10_000.0


def test_a_stuck_pipeline_withholds_the_watchdog(
    monkeypatch: pytest.MonkeyPatch, supervisor: socket.socket, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    settings = settings_for("postgresql://nowhere", sync_of("docs"))
    worker = Worker(settings, settings.sync, load=lambda _: NullEncoder())
    worker.ping()
    assert supervisor.recv(100) == b"WATCHDOG=1"
    worker.keepers[0].pipeline = Stuck()  # type: ignore[assignment]
    worker.ping()
    supervisor.setblocking(False)
    with pytest.raises(BlockingIOError):
        supervisor.recv(100)
