"""The service under a real systemd: it starts, tells, restarts, reloads, stops, and gives up in time."""

from pathlib import Path

import psycopg
import pytest

from tests.acceptance.conftest import SOCKET, give_model, give_uv
from tests.machine import Machine
from tests.support import DOCS_SYNC, Connection, count, exists, until

SECRET = "geheimnis"
UNIT = "freshvec"


@pytest.fixture
def service(machine: Machine, docs: Connection, url_there: str) -> Machine:
    """The machine with freshvec installed as a service, not started: a file, a credential, the model."""
    docs.execute("INSERT INTO docs VALUES (1, 'one')")
    give_uv(machine)
    give_model(machine)
    machine.run(
        "uv tool install --quiet --python /usr/bin/python3 'freshvec[cpu,serve] @ '$(ls freshvec/dist/*.whl)"
    )
    machine.run("ln -s /root/.local/bin/freshvec /usr/local/bin && freshvec install-units")
    configure(machine, "/etc/freshvec", url_there)
    machine.run("systemctl daemon-reload")
    return machine


def configure(machine: Machine, folder: str, url: str, toml: str = DOCS_SYNC) -> None:
    machine.write(f"{folder}/freshvec.toml", toml)
    machine.write(f"{folder}/database_url", url.replace("postgres:@", f"postgres:{SECRET}@"), 0o600)


def is_fresh(connection: Connection, rows: int, target: str = "docs_embedding") -> bool:
    return exists(connection, target) and count(connection, target) == rows


def status_of(machine: Machine, unit: str = UNIT) -> str:
    return machine.show(unit, "StatusText")[0]


def test_it_is_ready_shows_how_it_is_and_comes_again_when_killed(service: Machine, docs: Connection) -> None:
    service.run(f"systemctl enable --now {UNIT}")
    assert service.show(UNIT, "ActiveState", "SubState", "NRestarts") == ["active", "running", "0"]
    until("the status line tells", lambda: status_of(service).startswith("docs 100%"))
    (pid, user) = service.show(UNIT, "MainPID", "User")
    assert user == "freshvec"
    assert int(service.run(f"stat --format=%u /proc/{pid}")) >= 61184, "a user that exists meanwhile"
    for place in (f"/proc/{pid}/cmdline", f"/proc/{pid}/environ"):
        assert SECRET not in service.run(f"tr '\\0' ' ' < {place}")
    assert SECRET not in service.run(f"systemctl show {UNIT}; systemctl cat {UNIT}; systemctl status {UNIT}")
    assert SECRET not in service.run(f"journalctl -u {UNIT}")

    service.run(f"kill -9 {pid}")
    until("it was started again", lambda: service.show(UNIT, "NRestarts", "ActiveState") == ["1", "active"])
    docs.execute("INSERT INTO docs VALUES (2, 'two')")
    until("it works again", lambda: is_fresh(docs, 2))


def test_a_worker_that_gives_no_sign_is_killed_and_started_again(service: Machine, docs: Connection) -> None:
    service.write(f"/etc/systemd/system/{UNIT}.service.d/quick.conf", "[Service]\nWatchdogSec=3\n")
    service.run(f"systemctl daemon-reload && systemctl start {UNIT}")
    until("it works", lambda: is_fresh(docs, 1))
    service.run(f"kill -STOP {service.show(UNIT, 'MainPID')[0]}")
    until("it was started again", lambda: service.show(UNIT, "NRestarts", "ActiveState") == ["1", "active"])
    assert "Watchdog timeout" in service.run(f"journalctl -u {UNIT}")


def test_reload_stop_and_backfill(service: Machine, docs: Connection, url_there: str) -> None:
    docs.execute("CREATE TABLE more (id int PRIMARY KEY, body text); INSERT INTO more VALUES (1, 'm')")
    service.run(f"systemctl start {UNIT}")
    (pid,) = service.show(UNIT, "MainPID")
    more = DOCS_SYNC.replace('"docs"', '"more"')
    configure(service, "/etc/freshvec", url_there, DOCS_SYNC + more.replace("columns", "colums"))
    service.run(f"systemctl reload {UNIT}")
    until("the fault is shown", lambda: "the file is not taken up" in status_of(service))
    configure(service, "/etc/freshvec", url_there, DOCS_SYNC + more)
    service.run(f"systemctl reload {UNIT}")
    until("the new sync is kept", lambda: is_fresh(docs, 1, "more_embedding"))
    assert service.show(UNIT, "MainPID", "ActiveState") == [pid, "active"]

    docs.execute("INSERT INTO docs SELECT n, 'number ' || n FROM generate_series(2, 400) AS n")
    until("it is under way", lambda: count(docs, "docs_embedding") > 1)
    service.run(f"systemctl stop {UNIT}")
    assert service.show(UNIT, "Result", "ExecMainStatus", "ActiveState") == ["success", "0", "inactive"]
    assert "finishing what is under way" in service.run(f"journalctl -u {UNIT}")

    service.run("systemctl start freshvec-backfill")  # returns when it is done
    assert service.show("freshvec-backfill", "Result") == ["success"]
    assert count(docs, "docs_embedding") == 400
    assert "every one fresh" in service.run("freshvec verify docs")


@pytest.mark.parametrize("fault", ["a key", "no model", "no file"])
def test_a_fault_of_the_configuration_is_not_tried_again(
    service: Machine, docs: Connection, url_there: str, fault: str
) -> None:
    if fault == "a key":
        configure(service, "/etc/freshvec", url_there, DOCS_SYNC.replace("columns", "colums"))
    elif fault == "no model":
        service.run("mv /var/lib/freshvec/models /var/lib/freshvec/away")
    else:
        service.run("rm /etc/freshvec/freshvec.toml")
    assert service.try_to(f"systemctl start {UNIT}").returncode != 0
    assert service.show(UNIT, "ActiveState", "ExecMainStatus", "NRestarts") == ["failed", "78", "0"]
    assert "ERROR" in service.run(f"journalctl -u {UNIT}")
    service.run("mv /var/lib/freshvec/away /var/lib/freshvec/models || true")
    configure(service, "/etc/freshvec", url_there)
    service.run(f"systemctl start {UNIT}")
    until("it works", lambda: is_fresh(docs, 1))


def test_instances_have_a_folder_each(
    service: Machine, docs: Connection, url_there: str, tmp_path: Path
) -> None:
    name = url_there.split("/")[3].split("?")[0]
    docs.execute(f"CREATE DATABASE {name}_other")
    other = url_there.replace(name, f"{name}_other")
    try:
        here = other.replace(SOCKET, docs.info.host)
        with psycopg.connect(here, autocommit=True) as connection:
            connection.execute("CREATE TABLE docs (id int PRIMARY KEY, body text)")
            connection.execute("INSERT INTO docs VALUES (1, 'a'), (2, 'b')")
            for instance, url in (("shop", url_there), ("blog", other)):
                configure(service, f"/etc/freshvec/{instance}", url)
            service.run("systemctl start freshvec-folder@shop freshvec-folder@blog")
            until("both are fresh", lambda: is_fresh(docs, 1) and is_fresh(connection, 2))
            for instance in ("shop", "blog"):
                assert service.show(f"freshvec-folder@{instance}", "ActiveState") == ["active"]
            service.run("systemctl stop freshvec-folder@blog")
            assert service.show("freshvec-folder@shop", "ActiveState") == ["active"]
    finally:
        docs.execute(f"DROP DATABASE {name}_other WITH (FORCE)")


def test_workers_that_share_are_instances_with_a_number(service: Machine, docs: Connection) -> None:
    service.run(f"systemctl start {UNIT}")
    until("it is fresh", lambda: is_fresh(docs, 1))
    service.run("systemctl start freshvec@0 freshvec@1")
    assert service.show(UNIT, "ActiveState") == ["inactive"], "it shares with nobody"
    for instance in (0, 1):
        assert service.show(f"freshvec@{instance}", "ActiveState", "NRestarts") == ["active", "0"]
    service.run("systemctl kill --signal=SIGKILL freshvec@0")
    docs.execute("INSERT INTO docs VALUES (2, 'two')")
    until("the other goes on, or it comes again", lambda: is_fresh(docs, 2))
    until("it comes again", lambda: service.show("freshvec@0", "ActiveState", "NRestarts") == ["active", "1"])
    assert "w1 freshvec" in service.run("journalctl -u freshvec@1")
    service.run("systemctl stop freshvec@0 freshvec@1")
    assert service.show("freshvec@0", "Result") == ["success"]
    assert service.show("freshvec@1", "Result") == ["success"]


def test_a_supervisor_is_a_service(service: Machine, docs: Connection) -> None:
    started = service.run(f"grep ^ExecStart= /etc/systemd/system/{UNIT}.service").strip()
    drop_in = f"[Service]\nExecStart=\n{started} --workers 2\n"
    service.write(f"/etc/systemd/system/{UNIT}.service.d/workers.conf", drop_in)
    service.run(f"systemctl daemon-reload && systemctl start {UNIT}")
    until("all run", lambda: status_of(service).startswith("2 of 2 workers run"))
    until("it is fresh", lambda: is_fresh(docs, 1))
    (pid,) = service.show(UNIT, "MainPID")
    service.run(f"kill -9 $(pgrep --parent {pid} --newest)")
    until("it is started again", lambda: "is started again in" in service.run(f"journalctl -u {UNIT}"))
    until("all run again", lambda: status_of(service).startswith("2 of 2 workers run"))
    assert service.show(UNIT, "NRestarts") == ["0"], "systemd need not"
    service.run(f"systemctl stop {UNIT}")
    assert service.show(UNIT, "Result", "ExecMainStatus") == ["success", "0"]
    log = service.run(f"journalctl -u {UNIT}")
    assert "finishing what is under way" in log
    assert SECRET not in log
