"""`freshvec doctor`: what is wrong is found, with its reason, and what it says mends it."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from freshvec.config import Settings
from freshvec.db import connect
from freshvec.doctor import device, examine, files, load, roles, syncs
from freshvec.doctor.finding import Finding
from freshvec.doctor.place import Check, Place
from freshvec.schema import migrations
from freshvec.schema.apply import apply
from tests.integration.doctor_checks import FAULT, OK, WARNING, looked, worst
from tests.support import (
    DOCS_SYNC,
    MODEL,
    Connection,
    config_toml,
    freshvec,
    models_in,
    settings_for,
    sync_of,
    write_config,
)


@pytest.fixture
def settings(url: str, docs: Connection, models_dir: Path) -> Settings:
    return settings_for(url, sync_of("docs"), models_dir=models_dir, device="cpu")


@pytest.fixture
def applied(settings: Settings, models_dir: Path) -> Settings:
    model = models_in(models_dir).describe(settings.sync[0])
    with connect(settings.database.url, "test") as connection:
        migrations.migrate(connection)
        apply(connection, settings.sync[0], model)
    return settings


def test_a_declared_sync_that_was_never_applied(settings: Settings) -> None:
    found = worst(looked(syncs.syncs, settings))
    assert (found.severity, found.what) == (FAULT, "docs is not applied")


def test_a_trigger_that_is_missing_or_disabled_is_named_with_its_table(
    applied: Settings, docs: Connection, models_dir: Path
) -> None:
    assert worst(looked(syncs.syncs, applied)).severity is OK
    docs.execute(
        "DROP TRIGGER freshvec_docs_update ON docs; ALTER TABLE docs DISABLE TRIGGER freshvec_docs_delete"
    )
    found = worst(looked(syncs.syncs, applied))
    assert found.severity is FAULT
    assert "freshvec_docs_update on public.docs" in found.what
    assert "freshvec_docs_delete on public.docs" in found.what
    with connect(applied.database.url, "test") as connection:  # as `freshvec apply docs` does
        apply(connection, applied.sync[0], models_in(models_dir).describe(applied.sync[0]))
    assert worst(looked(syncs.syncs, applied)).severity is OK


def test_what_is_on_a_queue_that_refuses_entries(applied: Settings, docs: Connection) -> None:
    docs.execute("CREATE RULE never AS ON INSERT TO freshvec.queue_docs DO INSTEAD NOTHING")
    found = worst(looked(syncs.syncs, applied))
    assert found.severity is FAULT
    assert "its queue has what was not made by freshvec: rule never" in found.what
    docs.execute("DROP RULE never ON freshvec.queue_docs")
    assert worst(looked(syncs.syncs, applied)).severity is OK


def test_another_definition(applied: Settings, url: str, models_dir: Path) -> None:
    other = settings_for(url, sync_of("docs", where="id > 1"), models_dir=models_dir)
    found = worst(looked(syncs.syncs, other))
    assert (found.severity, found.what) == (WARNING, "docs is declared otherwise than it is applied: where")


def test_roles_and_what_they_lack(settings: Settings, url: str, docs: Connection, models_dir: Path) -> None:
    docs.execute("CREATE ROLE doctor_owner LOGIN; CREATE ROLE doctor_worker")
    try:
        owner = url.replace("postgres:@", "doctor_owner:@")
        given = settings_for(owner, sync_of("docs"), models_dir=models_dir)
        database = given.database.model_copy(update={"worker_role": "doctor_worker"})
        given = given.model_copy(update={"database": database})
        found = {finding.what: finding for finding in looked(roles.roles, given)}
        for words in (
            "doctor_owner may not make the schema freshvec",
            "doctor_owner may not read docs",
            "doctor_owner may not make triggers on docs",
            "doctor_worker may not log in",
        ):
            assert found[words].severity is FAULT
        docs.execute("ALTER ROLE doctor_worker LOGIN; ALTER TABLE docs OWNER TO doctor_owner")
        (name,) = docs.execute("SELECT current_database()").fetchone() or ("",)
        docs.execute(f"GRANT CREATE ON DATABASE {name} TO doctor_owner".encode())
        assert [finding.severity for finding in looked(roles.roles, given)] == [OK]
        docs.execute("ALTER TABLE docs ENABLE ROW LEVEL SECURITY")
        (hidden,) = looked(roles.roles, given)
        assert hidden.what == "row security hides rows of docs from doctor_worker"
        assert hidden.remedy == "As a superuser: ALTER ROLE doctor_worker BYPASSRLS;"
    finally:
        docs.execute("DROP OWNED BY doctor_owner, doctor_worker; DROP ROLE doctor_owner, doctor_worker")


def test_too_little_memory_is_found_in_what_the_worker_said(applied: Settings, docs: Connection) -> None:
    docs.execute(
        "INSERT INTO freshvec.activity (sync, worker, device, phase, rows_per_second, rows_written,"
        " texts_truncated, last_error) VALUES ('docs', 'w', 'cuda', 'live', 0, 0, 0,"
        " 'Failed to allocate memory for requested buffer of size 1')"
    )
    found = worst(looked(syncs.rows, applied))
    assert (found.subject, found.severity) == ("memory", FAULT)


def test_too_little_memory_is_found_in_what_was_learnt(
    settings: Settings, url: str, models_dir: Path, tmp_path: Path
) -> None:
    beside = shutil.ignore_patterns("*.json.*", "budgets.json", "trials.json")  # which others write now
    shutil.copytree(models_dir, tmp_path / "models", ignore=beside)
    learnt = {f"{MODEL} on cuda": {"size": 4096, "ceiling": 8192, "ceiling_at": time.time()}}
    (tmp_path / "models/budgets.json").write_text(json.dumps(learnt))
    place = Place(settings_for(url, sync_of("docs"), models_dir=tmp_path / "models"), None)
    found = worst(list(device.memory(place)))
    assert f"{MODEL} on cuda ran out of memory before: batches have at most 8,192 tokens" in found.what


@pytest.fixture
def graphics_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose nvidia-smi lists a GPU, which nothing here can use."""
    program = tmp_path / "programs/nvidia-smi"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\n[ "$1" = -L ] && echo "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")


@pytest.mark.usefixtures("graphics_card")
def test_a_gpu_that_is_not_used_is_found(settings: Settings, url: str, models_dir: Path) -> None:
    asked = settings_for(url, sync_of("docs"), models_dir=models_dir)
    found = worst(list(device.device(Place(asked, None))))
    assert found.severity is FAULT
    assert f"the GPU is not used: {MODEL} runs on the CPU beside GPU 0: NVIDIA H100" in found.what
    assert "pip install 'freshvec[gpu]'" in found.remedy
    assert worst(list(device.device(Place(settings, None)))).severity is OK  # asked for by device = "cpu"


def test_a_gpu_that_is_asked_for_and_not_there(url: str, models_dir: Path) -> None:
    asked = settings_for(url, sync_of("docs"), models_dir=models_dir, device="cuda")
    assert worst(list(device.device(Place(asked, None)))).severity is FAULT


def test_models_that_others_can_replace_or_the_service_cannot_read(
    url: str, models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(models_dir / MODEL, tmp_path / "models" / MODEL)
    place = Place(settings_for(url, sync_of("docs"), models_dir=tmp_path / "models"), None)
    folder = tmp_path / "models" / MODEL
    folder.chmod(0o777)
    assert "every user may write" in worst(list(files.models(place))).what
    folder.chmod(0o700)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert "by its owner and group alone" in worst(list(files.models(place))).what
    folder.chmod(0o755)
    (tmp_path / "models").chmod(0o755)
    assert worst(list(files.models(place))).severity is OK
    (folder / "fp32.onnx").write_bytes(b"damaged")
    assert worst(list(files.models(place))).severity is FAULT


def test_names_that_need_quotes_have_them_in_what_mends(settings: Settings, docs: Connection) -> None:
    database = settings.database.model_copy(update={"worker_role": "my-shop"})
    given = settings.model_copy(update={"database": database})
    (lacking,) = looked(roles.roles, given)
    docs.execute('CREATE ROLE "my-shop" NOLOGIN SUPERUSER')
    try:
        remedies = [lacking.remedy, *(finding.remedy for finding in looked(roles.roles, given))]
    finally:
        docs.execute('DROP ROLE "my-shop"')
    assert len(remedies) == 3
    assert all('ROLE "my-shop" ' in remedy for remedy in remedies), remedies


def test_a_file_that_the_service_cannot_read_or_that_tells_a_password(
    url: str, models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    (tmp_path / "etc").mkdir()
    file = write_config(tmp_path / "etc/freshvec.toml", config_toml(url, models_dir, DOCS_SYNC))
    place = Place(settings_for(url, sync_of("docs")), file)
    file.parent.chmod(0o755)
    for path in (file, file.parent):
        mode = path.stat().st_mode
        path.chmod(0o700)
        found = worst(list(files.configuration(place)))
        assert f"{path} may be read by its owner and group alone" in found.what
        assert "chmod a+rX" in found.remedy
        path.chmod(mode)
    assert worst(list(files.configuration(place))).severity is OK
    replica = '[database]\nreplica = "postgresql://me:s3cret@other/shop"\n'
    file.write_text(replica + DOCS_SYNC)
    assert "has a password in it" in worst(list(files.configuration(place))).what


def test_a_worker_that_may_do_little_is_examined_whole(
    applied: Settings, url: str, docs: Connection, models_dir: Path
) -> None:
    docs.execute("CREATE ROLE doctor_worker LOGIN; GRANT USAGE ON SCHEMA public TO doctor_worker")
    try:
        with connect(applied.database.url, "test") as connection:
            model = models_in(models_dir).describe(applied.sync[0])
            apply(connection, applied.sync[0], model, worker_role="doctor_worker")
        worker = settings_for(
            url.replace("postgres:@", "doctor_worker:@"), sync_of("docs"), models_dir=models_dir
        )
        database = worker.database.model_copy(update={"worker_role": "doctor_worker"})
        worker = worker.model_copy(update={"database": database})
        found = {name: list(looked(check, worker)) for name, check in examine.IN_DATABASE.items()}
    finally:
        docs.execute("DROP OWNED BY doctor_worker; DROP ROLE doctor_worker")
    faults = [finding for each in found.values() for finding in each if finding.severity is FAULT]
    assert [finding.what for finding in faults] == ["docs: no worker runs, and not every row is fresh"]


def test_a_check_that_fails_is_a_finding_and_hides_no_other(
    url: str, docs: Connection, models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(place: Place) -> Iterator[Finding]:
        raise KeyError("broken")

    def loses_the_connection(place: Place) -> Iterator[Finding]:
        place.connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        raise AssertionError("it is lost")

    path = write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC, 'device = "cpu"'))
    checks: dict[str, Check] = {
        "first": fails,
        "clock": load.clock,
        "second": loses_the_connection,
    }
    monkeypatch.setattr(examine, "HERE", {})
    monkeypatch.setattr(examine, "IN_DATABASE", {**checks, "last": load.clock})
    found = [(finding.subject, finding.severity) for finding in examine.examine(path)]
    assert found == [
        ("database", OK),
        ("first", WARNING),
        ("clock", OK),
        ("second", WARNING),
        ("last", WARNING),
    ]


def test_the_command(url: str, docs: Connection, models_dir: Path, tmp_path: Path) -> None:
    path = write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC, 'device = "cpu"'))
    done = freshvec("doctor", "--config", str(path))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAULT     syncs: docs is not applied" in done.stdout
    assert "mend: freshvec apply docs" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines() if str(tmp_path) not in line) <= 80
    assert not docs.execute("SELECT FROM pg_namespace WHERE nspname = 'freshvec'").fetchone()
    assert freshvec("apply", "--config", str(path)).returncode == 0
    assert freshvec("backfill", "--config", str(path)).returncode == 0
    well = freshvec("doctor", "--json", "--config", str(path))
    found = json.loads(well.stdout)
    assert (well.returncode, found["faults"]) == (0, 0), well.stdout
    assert found["warnings"] > 0, "fsync is off here"
    assert all(finding["remedy"] for finding in found["findings"] if finding["severity"] != "ok")
    assert freshvec("doctor", "--strict", "--quiet", "--config", str(path)).returncode == 1


def test_without_database_or_configuration_the_rest_is_looked_at(tmp_path: Path) -> None:
    path = write_config(tmp_path / "freshvec.toml", "[databse]\n")
    env = {"FRESHVEC_DATABASE_URL": f"host={tmp_path}"}
    for text, subject in (("[databse]\n", "configuration"), ("", "database")):
        path.write_text(text)
        done = freshvec("doctor", "--json", "--config", str(path), env=env)
        found = [(each["subject"], each["severity"]) for each in json.loads(done.stdout)["findings"]]
        assert done.returncode == 1
        assert (subject, "fault") in found
        assert {("versions", "ok"), ("disk", "ok"), ("database", "warning")} <= set(found)


@pytest.mark.parametrize(
    "given", ["postgresql://u:p@ssw0rd@localhost:1/x", "host=localhost port=1 password=my ssw0rd"]
)
def test_no_part_of_a_password_is_shown(tmp_path: Path, given: str) -> None:
    path = write_config(tmp_path / "freshvec.toml", "")
    for form in ((), ("--json",)):
        done = freshvec("doctor", *form, "--config", str(path), env={"FRESHVEC_DATABASE_URL": given})
        assert "***" in done.stdout, "it is said what is wrong"
        assert "ssw0rd" not in done.stdout + done.stderr
