"""The units, and what the worker tells its supervisor."""

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from embedsync import config, data
from tests.support import DOCS_SYNC, Connection, Worker, config_toml, write_config

UNITS = ("embedsync.service", "embedsync-backfill.service")
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine")


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_nothing_to_complain_about(unit: str, tmp_path: Path) -> None:
    text = (
        (data.folder("systemd") / unit).read_text().replace("/opt/embedsync/bin/embedsync", shutil.which("true") or "/bin/true")
    )
    (tmp_path / unit).write_text(text)
    dropin = tmp_path / f"{unit}.d"
    dropin.mkdir()
    shutil.copy(data.folder("systemd") / "gpu.conf", dropin)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_is_hardened(unit: str) -> None:
    path = data.folder("systemd") / unit
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=30", "--no-pager", str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-300:]


def test_the_example_configuration_is_valid() -> None:
    assert config.load(data.folder("systemd") / "embedsync.toml.example", {}).sync[0].name == "articles"


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as received:
        received.bind(str(tmp_path / "notify"))
        received.settimeout(60)
        yield received


def test_ready_means_listening_and_the_url_stays_secret(
    url: str, docs: Connection, models_dir: Path, tmp_path: Path, workers: Callable[..., Worker], supervisor: socket.socket
) -> None:
    docs.execute("INSERT INTO docs VALUES (1, 'one')")
    secret = url.replace("postgres:@", "postgres:geheimnis@")
    (tmp_path / "database_url").write_text(secret + "\n")
    toml = "\n".join(line for line in config_toml("x", models_dir, DOCS_SYNC).splitlines() if not line.startswith("url"))
    environment = {
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": "1000000",
        "CREDENTIALS_DIRECTORY": str(tmp_path),
        "EMBEDSYNC_DAEMON_LOG_LEVEL": "DEBUG",
    }
    worker = workers(write_config(tmp_path / "embedsync.toml", toml), env=environment)
    assert supervisor.recv(1000).startswith(b"READY=1")
    seen = docs.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'embedsync listener'").fetchone()
    assert seen == (1,)
    assert supervisor.recv(1000) == b"WATCHDOG=1"
    assert supervisor.recv(1000) == b"WATCHDOG=1"
    process = Path(f"/proc/{worker.process.pid}")
    for file in ("cmdline", "environ"):
        assert b"geheimnis" not in (process / file).read_bytes()
    assert worker.stop() == 0
    messages: list[bytes] = []
    supervisor.settimeout(1)
    while not messages or messages[-1] != b"STOPPING=1":
        messages.append(supervisor.recv(1000))
    assert "geheimnis" not in worker.output
    assert "Traceback" not in worker.output


def test_a_stuck_pipeline_withholds_the_watchdog(
    monkeypatch: pytest.MonkeyPatch, supervisor: socket.socket, tmp_path: Path
) -> None:
    from embedsync import service
    from tests.support import NullEncoder, settings_for, sync_of

    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    settings = settings_for("postgresql://nowhere", sync_of("docs"))
    made = service.Service(settings, settings.sync, load=lambda _, __: NullEncoder())

    class Stuck:
        failure = None

        def beat(self) -> float:
            return 10_000.0

    made._ping()
    assert supervisor.recv(100) == b"WATCHDOG=1"
    made.keepers[0].pipeline = Stuck()  # type: ignore[assignment]
    made._ping()
    supervisor.settimeout(0.2)
    with pytest.raises(TimeoutError):
        supervisor.recv(100)
