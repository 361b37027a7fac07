"""Settings from the environment and from a service manager's credentials."""

from pathlib import Path

import psycopg
import pytest

from freshvec import config
from freshvec.db import connect
from tests.unit.settings_files import GOOD, faults, load


def test_the_environment_wins(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        GOOD,
        FRESHVEC_DATABASE_URL="postgresql://other",
        FRESHVEC_DAEMON_DEVICE="cpu",
        FRESHVEC_DAEMON_PAGE_ROWS="7",
    )
    assert settings.database.url.get_secret_value() == "postgresql://other"
    assert (settings.daemon.device, settings.daemon.page_rows) == ("cpu", 7)


def test_a_credential_of_the_service_manager(tmp_path: Path) -> None:
    (tmp_path / "database_url").write_text("postgresql://from-credential\n")
    settings = load(tmp_path, GOOD, CREDENTIALS_DIRECTORY=str(tmp_path))
    assert settings.database.url.get_secret_value() == "postgresql://from-credential"


def test_without_systemd_the_credential_beside_the_file_is_used(tmp_path: Path) -> None:
    """Root's commands work on the service's database without being told."""
    (tmp_path / "database_url").write_text("postgresql://beside\n")
    assert load(tmp_path, GOOD).database.url.get_secret_value() == "postgresql://beside"
    assert load(tmp_path, "").database.url.get_secret_value() == "postgresql://beside"
    (tmp_path / "given").mkdir()
    (tmp_path / "given/database_url").write_text("\n")  # the unit's default, where there is no such file
    settings = load(tmp_path, GOOD, CREDENTIALS_DIRECTORY=str(tmp_path / "given"))
    assert settings.database.url.get_secret_value() == "postgresql://u:geheimnis@h/d"


def test_a_folder_that_may_not_be_looked_into_has_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who is in a folder of root's; a name that is too long is refused to root as well."""
    monkeypatch.setattr(config, "SEARCHED", (f"{'x' * 300}/freshvec.toml", str(tmp_path / "freshvec.toml")))
    (tmp_path / "freshvec.toml").write_text(GOOD)
    assert config.file_of() == tmp_path / "freshvec.toml"


def test_a_variable_wins_over_the_credential(tmp_path: Path) -> None:
    (tmp_path / "database_url").write_text("postgresql://from-credential\n")
    settings = load(
        tmp_path,
        GOOD,
        CREDENTIALS_DIRECTORY=str(tmp_path),
        FRESHVEC_DATABASE_URL="postgresql://from-variable",
    )
    assert settings.database.url.get_secret_value() == "postgresql://from-variable"


def test_every_setting_can_come_from_the_environment(tmp_path: Path) -> None:
    given = {
        "FRESHVEC_DATABASE_URL": "postgresql://from-variable",
        "FRESHVEC_DATABASE_WORKER_ROLE": "worker",
        "FRESHVEC_DAEMON_THREADS": "3",
        "FRESHVEC_DAEMON_COMMIT_EVERY_SECONDS": "0.25",
        "FRESHVEC_DAEMON_MODELS_DIR": "/models",
        "FRESHVEC_DAEMON_CATALOGUE_DIRS": "/first:/second",
        "FRESHVEC_DAEMON_LOG_FORMAT": "json",
    }
    settings = load(tmp_path, "", **given)
    assert settings.database.url.get_secret_value() == "postgresql://from-variable"
    assert settings.database.worker_role == "worker"
    assert (settings.daemon.threads, settings.daemon.commit_every_seconds) == (3, 0.25)
    assert settings.daemon.models_dir == Path("/models")
    assert settings.daemon.catalogue_dirs == (Path("/first"), Path("/second"))
    assert settings.daemon.log_format == "json"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("DAEMON_THREADS", "many", "it is a whole number; write 1"),
        ("DAEMON_THREADS", "0", "it must be 1 or more, but it says '0'"),
        ("DAEMON_THREADS", "", "it is a whole number; write 1"),
        ("WEB_ROWS", "maybe", "it is true or false; write true"),
        ("DAEMON_WAKE", "ring", "'ring' is not possible; write one of 'bell' or 'poll'"),
        ("DAEMON_DEVICE", "gpu", "there is no device 'gpu'; write auto, cpu"),
        ("DAEMON_DEVISE", "cpu", "there is no such setting; did you mean FRESHVEC_DAEMON_DEVICE?"),
        ("DEMON_DEVICE", "cpu", "there is no such setting; did you mean FRESHVEC_DAEMON_DEVICE?"),
        ("DATABASEURL", "geheimnis", "there is no such setting; did you mean FRESHVEC_DATABASE_URL?"),
        ("DATABASE", "postgresql://u:geheimnis@h/d", "for each setting, with FRESHVEC_DATABASE_ before it"),
        ("DATABASE_PASSWORD", "geheimnis", "possible are FRESHVEC_DATABASE_REPLICA, FRESHVEC_DATABASE_URL"),
    ],
)
def test_a_faulty_variable_is_named_and_no_secret_shown(
    tmp_path: Path, name: str, value: str, message: str
) -> None:
    (found,) = faults(tmp_path, GOOD, **{f"FRESHVEC_{name}": value})
    assert found.startswith(f"FRESHVEC_{name} (environment): ")
    assert message in found
    assert "geheimnis" not in found


@pytest.mark.parametrize("name", ["FRESHVEC_PROGRAMS", "FRESHVEC_SYNC", "FRESHVEC_API_KEY", "FRESHVECTOR"])
def test_other_variables_are_not_ours_to_judge(tmp_path: Path, name: str) -> None:
    assert load(tmp_path, GOOD, **{name: "1"}) == load(tmp_path, GOOD)


def test_the_file_s_other_settings_stay_beside_those_of_the_environment(tmp_path: Path) -> None:
    text = GOOD + "[daemon]\nthreads = 2\nwake = 'poll'\n"
    daemon = load(tmp_path, text, FRESHVEC_DAEMON_THREADS="3").daemon
    assert (daemon.threads, daemon.wake, daemon.model_fields_set) == (3, "poll", {"threads", "wake"})


def test_a_credential_of_another_kind_is_a_fault_and_none_without_a_folder(tmp_path: Path) -> None:
    (tmp_path / "unit").mkdir()
    (tmp_path / "unit/api_key").write_text("geheimnis")
    (tmp_path / "unit/database_password").write_text("geheimnis")
    (found,) = faults(tmp_path, GOOD, CREDENTIALS_DIRECTORY=str(tmp_path / "unit"))
    assert "database.password: there is no such key" in found
    assert "geheimnis" not in found
    (tmp_path / "unit/database_password").write_bytes(b"\xff\xfe geheimnis")
    (found,) = faults(tmp_path, GOOD, CREDENTIALS_DIRECTORY=str(tmp_path / "unit"))
    assert "a credential, as database_url, cannot be read" in found
    assert load(tmp_path, GOOD, CREDENTIALS_DIRECTORY=str(tmp_path / "none")).sync


def test_the_files_place_can_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "elsewhere.toml"
    path.write_text(GOOD)
    monkeypatch.setenv("FRESHVEC_CONFIG", str(path))
    assert config.load().sync[0].name == "articles"


def test_without_a_url_libpqs_own_variables_decide(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(tmp_path, "")
    assert settings.database.url.get_secret_value() == ""
    params = psycopg.conninfo.conninfo_to_dict(url)
    for variable, key in {
        "PGHOST": "host",
        "PGPORT": "port",
        "PGUSER": "user",
        "PGDATABASE": "dbname",
    }.items():
        if params.get(key):
            monkeypatch.setenv(variable, str(params[key]))
    with connect(settings.database.url, "test") as connection:
        assert connection.info.dbname == params["dbname"]
