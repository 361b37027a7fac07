"""The wheel in a clean environment, away from the checkout."""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest

from freshvec import __version__, data
from tests.support import DOCS_SYNC, REPOSITORY, Connection, config_toml, exists, write_config


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with only the wheel in it; its dependencies come from this one by path."""
    folder = tmp_path_factory.mktemp("wheel")
    module("build", "--wheel", "--no-isolation", "--outdir", str(folder), str(REPOSITORY))
    venv.create(folder / "venv", with_pip=False)
    (wheel,) = folder.glob("*.whl")
    python = folder / "venv/bin/python"
    module("pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    # A path entry brings the dependencies along, but not the editable install of this checkout.
    where = run(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=folder).stdout.strip()
    (Path(where) / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "venv/bin"


def module(*command: str) -> None:
    """Run a module of this environment."""
    subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True)


def run(binary: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of the other environment; no path leads it back to the checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [binary, *arguments], capture_output=True, text=True, cwd=cwd, env=environment, check=False
    )


def test_the_command_works_and_the_data_is_inside(installed: Path, tmp_path: Path) -> None:
    assert "freshvec demo" in run(installed / "freshvec", "--help", cwd=tmp_path).stdout
    listed = run(installed / "freshvec", "models", "--json", cwd=tmp_path)
    assert "all-MiniLM-L6-v2" in listed.stdout, listed.stderr
    code = "import freshvec.data as d; print(*(d.folder(n) for n in ('migrations', 'models', 'systemd')))"
    where = run(installed / "python", "-c", code, cwd=tmp_path).stdout.split()
    assert len(where) == 3
    for folder in map(Path, where):
        assert str(REPOSITORY) not in str(folder)
        assert any(folder.iterdir())


def test_the_migrations_apply_from_there(
    installed: Path, url: str, docs: Connection, models_dir: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC))
    done = run(installed / "freshvec", "apply", "--config", str(config), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "migrated: 0001_schema.sql" in done.stdout
    assert exists(docs, "docs_embedding")


def test_an_editable_install_finds_them_in_the_checkout() -> None:
    assert data.folder("migrations") == REPOSITORY / "migrations"


def git_lists(*which: str) -> set[str]:
    command = ["git", "ls-files", *which]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no checkout of git")
    return {path for path in listed.stdout.splitlines() if (REPOSITORY / path).exists()}


def test_the_source_archive_holds_what_git_tracks(built: Path) -> None:
    """And nothing that lies beside it, as a file with a password. What is new in a folder comes along."""
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        held = {name.partition("/")[2] for name in files.getnames()} - {"PKG-INFO"}
    new = {path for path in git_lists("--others", "--exclude-standard") if "/" in path}
    assert held - new == git_lists()


def test_types_and_metadata_come_along(installed: Path, tmp_path: Path) -> None:
    """A checker finds the types; nothing points to a page that does not exist."""
    code = (
        "import json; from importlib.metadata import distribution; found = distribution('freshvec');"
        "print(json.dumps({'files': [str(file) for file in found.files], **found.metadata.json}))"
    )
    told = run(installed / "python", "-c", code, cwd=tmp_path)
    found = json.loads(told.stdout or "{}")
    assert "freshvec/py.typed" in found["files"], told.stderr
    for name in ("index.html", "page.js", "uplot.js", "uplot.LICENSE"):
        assert f"freshvec/web/page/{name}" in found["files"]
    assert found["version"] == __version__
    assert found["author"] == "freshvec contributors"
    assert found["license_expression"] == "Apache-2.0"
    assert found["description_content_type"] == "text/markdown"
    assert found["summary"]
    assert found["keywords"]
    assert "Typing :: Typed" in found["classifier"]
    assert not found.keys() & {"home_page", "project_url", "download_url"}
