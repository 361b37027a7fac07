"""`freshvec doctor` on the server: its settings, its log, its speed, its clock and who waits there."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from freshvec.config import Settings
from freshvec.doctor import load, server
from freshvec.doctor.examine import examine
from freshvec.doctor.finding import Severity
from freshvec.doctor.place import Check
from tests.integration.doctor_checks import FAULT, OK, WARNING, looked, worst
from tests.standby import Standby, server_with_docs
from tests.support import DOCS_SYNC, Connection, config_toml, settings_for, sync_of, until, write_config


@pytest.fixture
def settings(url: str, docs: Connection, models_dir: Path) -> Settings:
    return settings_for(url, sync_of("docs"), models_dir=models_dir, device="cpu")


# What is done to a database in order, the check, how bad it is, and words of it; the remedy mends it by SQL.
TROUBLES: dict[str, tuple[str, Check, Severity, str]] = {
    "no pgvector": ("DROP EXTENSION vector", server.pgvector, FAULT, "not installed in this database"),
    "no vacuum of the table": (
        "ALTER TABLE docs SET (autovacuum_enabled = false)",
        server.autovacuum,
        WARNING,
        "docs: autovacuum is off for it",
    ),
}


@pytest.mark.parametrize(("done", "check", "severity", "words"), TROUBLES.values(), ids=TROUBLES.keys())
def test_what_the_remedy_mends_is_gone(
    settings: Settings, docs: Connection, done: str, check: Check, severity: Severity, words: str
) -> None:
    assert worst(looked(check, settings)).severity is OK
    docs.execute(done.encode())
    found = worst(looked(check, settings))
    assert (found.severity, bool(found.why)) == (severity, True)
    assert words in found.what
    docs.execute(found.remedy.removeprefix("As a superuser: ").encode())
    assert worst(looked(check, settings)).severity is OK


def test_a_standby_is_named_and_every_check_looks_there(tmp_path: Path, models_dir: Path) -> None:
    with server_with_docs() as primary, Standby(primary) as standby:
        toml = config_toml(standby.url(), models_dir, DOCS_SYNC, 'device = "cpu"')
        found = list(examine(write_config(tmp_path / "freshvec.toml", toml)))
    assert [each.what for each in found if "not be looked at" in each.what] == []
    assert any("a standby, which takes no writes" in each.what for each in found if each.severity is FAULT)


SETTINGS = {
    "temp_file_limit": ("'64MB'", server.temporary_files, "temp_file_limit is 65,536 kB"),
    "autovacuum": ("off", server.autovacuum, "autovacuum or track_counts is off"),
}


@pytest.mark.parametrize(("name", "value", "check", "words"), [(n, *v) for n, v in SETTINGS.items()])
def test_settings_of_the_server(
    settings: Settings, docs: Connection, name: str, value: str, check: Check, words: str
) -> None:
    def has(wanted: str) -> bool:
        return docs.execute(f"SHOW {name}".encode()).fetchone() == (wanted,)

    (before,) = docs.execute(f"SHOW {name}".encode()).fetchone() or ("",)
    docs.execute(f"ALTER SYSTEM SET {name} = {value}".encode())
    try:
        docs.execute("SELECT pg_reload_conf()")
        until("it is set", lambda: not has(before))
        found = worst(looked(check, settings))
        assert found.severity is WARNING
        assert words in found.what
        for statement in found.remedy.split("; "):
            docs.execute(statement.encode())
        until("the remedy is there", lambda: worst(looked(check, settings)).severity is OK)
    finally:
        docs.execute(f"ALTER SYSTEM RESET {name}".encode())
        docs.execute("SELECT pg_reload_conf()")


def test_fsync_that_is_off(settings: Settings) -> None:
    found = worst(looked(server.log, settings))  # as it is in these tests
    assert (found.severity, found.what) == (WARNING, "fsync is off")


def test_a_slot_that_keeps_the_log(
    settings: Settings, docs: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "KEPT_BYTES", 0)
    docs.execute("SELECT pg_create_physical_replication_slot('forgotten', true)")
    try:
        docs.execute("INSERT INTO docs VALUES (1, 'text')")
        found = worst(looked(server.replication, settings))
        assert "slot forgotten is used by nobody" in found.what
    finally:
        docs.execute("SELECT pg_drop_replication_slot('forgotten')")
    assert worst(looked(server.replication, settings)).severity is OK


@contextmanager
def slow_line(url: str, seconds: float) -> Iterator[str]:
    """The database behind a line on which every answer takes so long."""
    folder = url.split("host=")[1]
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def carry(source: socket.socket, target: socket.socket, pause: float) -> None:
            try:
                while data := source.recv(65536):
                    time.sleep(pause)  # the line is slow: that is what is tested
                    target.sendall(data)
            except OSError:
                pass
            finally:
                target.close()

        def accept() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                there = socket.socket(socket.AF_UNIX)
                there.connect(f"{folder}/.s.PGSQL.5432")
                for one, other, pause in ((client, there, 0.0), (there, client, seconds)):
                    threading.Thread(target=carry, args=(one, other, pause), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        port = listening.getsockname()[1]
        yield f"{url.split('?')[0].replace('@/', f'@127.0.0.1:{port}/')}"


def test_a_slow_database_is_found(settings: Settings, url: str) -> None:
    assert worst(looked(load.speed, settings)).severity is OK
    with slow_line(url, 0.02) as slow:
        found = worst(looked(load.speed, settings_for(slow, sync_of("docs"))))
    assert found.severity is WARNING
    assert "the database is slow to answer" in found.what


def test_an_old_transaction_and_who_waits_for_a_lock(
    settings: Settings, url: str, docs: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "LONG_SECONDS", 0)
    with psycopg.connect(url, application_name="forgotten") as other:
        other.execute("LOCK TABLE docs")
        found = worst(looked(load.transactions, settings))
        assert "(forgotten, idle in transaction)" in found.what
        docs.execute(found.remedy.split(";")[0].encode())
        with closing(other), pytest.raises(psycopg.OperationalError):
            other.execute("SELECT 1")


def test_a_clock_that_goes_wrong(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert worst(looked(load.clock, settings)).severity is OK
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    assert "ahead of this machine's" in worst(looked(load.clock, settings)).what


@pytest.mark.parametrize(("syncs", "severity"), [(2, OK), (60, WARNING)])
def test_room_for_the_locks_of_those_who_share(
    url: str, docs: Connection, syncs: int, severity: Severity
) -> None:
    declared = [sync_of(f"t{number}", f"t{number}") for number in range(syncs)]
    found = worst(looked(server.locks, settings_for(url, *declared, share=True)))
    assert found.severity is severity
    assert f"{66 * syncs:,} of " in found.what
    assert looked(server.locks, settings_for(url, *declared)) == []
