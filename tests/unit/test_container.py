"""The container's files name nothing that is not there. No engine runs them here: they are read."""

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from freshvec import config
from tests.acceptance.reader import check_usage
from tests.support import REPOSITORY

FOLDER = REPOSITORY / "packaging/container"
KNOWN = {
    f"FRESHVEC_{section.upper()}_{key.upper()}"
    for section, field in config.Settings.model_fields.items()
    if section != "sync"
    for key in field.default.__class__.model_fields
} | {"FRESHVEC_API_KEY"}


def instructions() -> list[tuple[str, str]]:
    """Each instruction of the Containerfile with its words, continued lines as one."""
    text = re.sub(r"^#.*\n", "", (FOLDER / "Containerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def given(instruction: str) -> list[str]:
    return [words for name, words in instructions() if name == instruction]


@pytest.fixture
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    return loaded


def test_what_is_copied_is_there_and_is_what_the_build_needs() -> None:
    copied = [word for words in given("COPY") if "--from" not in words for word in words.split()[:-1]]
    for path in copied:
        assert (REPOSITORY / path).exists(), path
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert {*included, "daemon", "README.md", "LICENSE", "pyproject.toml"} <= set(copied)


def test_the_extras_and_the_settings_exist() -> None:
    (pip,) = (words for words in given("RUN") if "pip install" in words)
    (extras,) = re.findall(r"\[([$\w,]+)\]", pip)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert given("ARG") == ["DEVICE=cpu"]
    for device in ("cpu", "gpu"):
        wanted = extras.replace("$DEVICE", device).split(",")
        assert set(wanted) <= project["optional-dependencies"].keys()
    named = {word.split("=")[0] for words in given("ENV") for word in shlex.split(words)}
    assert {name for name in named if name.startswith("FRESHVEC_")} <= KNOWN


def test_it_runs_as_nobody_special_and_its_folders_are_that_users() -> None:
    (user,) = given("USER")
    (made,) = (words for words in given("RUN") if "useradd" in words)
    assert f"--owner={user}" in made
    for folder in (*given("VOLUME"), *given("WORKDIR")[1:]):
        assert folder in made


def test_its_commands_are_those_of_the_program(compose: dict[str, Any]) -> None:
    assert json.loads(given("ENTRYPOINT")[0]) == ["freshvec"]
    check_usage(json.loads(given("CMD")[0]))
    for service in ("model", "freshvec"):
        check_usage(compose["services"][service]["command"])
    (health,) = (words.split("CMD ", 1)[1] for words in given("HEALTHCHECK"))
    compile(json.loads(health)[2], "healthcheck", "exec")


def test_what_compose_names_is_there(compose: dict[str, Any]) -> None:
    ours = compose["services"]["freshvec"]
    for name in ours["environment"]:
        assert name in KNOWN or name == "PGPASSWORD"
    context = (FOLDER / ours["build"]["context"]).resolve()
    assert context == REPOSITORY
    assert (context / ours["build"]["dockerfile"]).exists()
    assert ours["depends_on"].keys() <= compose["services"].keys()
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (FOLDER / source).resolve().exists(), volume


def test_what_compose_declares_is_a_sound_configuration(
    compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = compose["services"]["freshvec"]
    (file,) = (volume.split(":")[0] for volume in ours["volumes"] if "freshvec.toml" in volume)
    for name, value in ours["environment"].items():
        monkeypatch.setenv(name, value)
    settings = config.load(Path(FOLDER / file))
    assert settings.sync
    ports = {port.rsplit(":", 1)[1] for port in ours["ports"]}
    addresses = (settings.web.address, str(settings.daemon.serve))
    assert {address.rsplit(":", 1)[1] for address in addresses} == ports
    for port in ours["ports"]:
        assert port.startswith("127.0.0.1:"), "others reach it only if somebody wants that"
    database = compose["services"]["database"]["environment"]
    assert settings.database.url.get_secret_value().endswith(f"/{database['POSTGRES_DB']}")
