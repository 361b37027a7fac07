"""A machine with nothing of freshvec on it but the wheels of its dependencies, and what is built of it."""

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from freshvec.embedded import EmbeddedPostgres
from tests.machine import Machine, tree, wheels
from tests.support import REPOSITORY

SOCKET = "/run/database"  # where the machine sees the socket of the test's server


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive."""
    folder = tmp_path_factory.mktemp("built")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(REPOSITORY)]
    subprocess.run(build, check=True, capture_output=True)
    return folder


@pytest.fixture
def machine(built: Path, models_dir: Path, server18: EmbeddedPostgres, tmp_path: Path) -> Iterator[Machine]:
    """Booted, without a network: pip and uv find packages in /wheels, what is built is in a clone's dist."""
    files = tree()
    binds = {
        wheels(): "/wheels",
        built: "/root/freshvec/dist",
        models_dir: "/srv/models",
        Path(server18.url().split("host=")[1]): SOCKET,
    }
    with Machine(files, binds) as booted:
        booted.write(
            "/etc/pip.conf", "[global]\nno-index = true\nfind-links = /wheels\n[install]\nno-compile = true\n"
        )
        booted.write("/etc/uv/uv.toml", 'offline = true\nno-index = true\nfind-links = ["/wheels"]\n')
        yield booted


@pytest.fixture
def url_there(url: str) -> str:
    """The test's database, as the machine reaches it."""
    return f"{url.split('host=')[0]}host={SOCKET}"


def give_uv(machine: Machine) -> None:
    """uv as it comes from PyPI: one program."""
    (wheel,) = wheels().glob("uv-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/scripts/uv"))
        program = Path(f"{machine.root}/usr/local/bin/uv")
        program.write_bytes(archive.read(name))
        program.chmod(0o755)


def give_model(machine: Machine) -> None:
    """The model, as an export by root leaves it."""
    machine.run("mkdir -p /var/lib/freshvec && cp -r /srv/models /var/lib/freshvec/models")
    machine.run("chmod -R a+rX /var/lib/freshvec")
