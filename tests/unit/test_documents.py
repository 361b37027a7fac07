"""The documents: generated ones are up to date, maps are the linter's, links lead somewhere."""

import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from freshvec.config import Daemon, Database, Sync, Web
from freshvec.storage import Index, Target
from tests.support import REPOSITORY

DOCUMENTS = (*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").rglob("*.md")))
GENERATOR = REPOSITORY / "scripts/configuration.py"


def names(paths: tuple[Path, ...]) -> list[str]:
    return [str(path.relative_to(REPOSITORY)) for path in paths]


def tracked() -> list[Path]:
    """The files of the repository, whether committed or about to be; all but what git ignores."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no checkout of git")
    return [path for path in map(REPOSITORY.joinpath, listed.stdout.splitlines()) if path.is_file()]


def test_the_configuration_page_is_what_the_settings_say() -> None:
    done = subprocess.run(
        [sys.executable, str(GENERATOR), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_setting_stands_in_the_configuration_page() -> None:
    page = (REPOSITORY / "docs/configuration.md").read_text(encoding="utf-8")
    for model in (Database, Daemon, Web, Sync, Target, Index):
        for name in model.model_fields:
            assert f"### `{name}`" in page
    for name in Daemon.model_fields:
        assert f"`FRESHVEC_DAEMON_{name.upper()}`" in page


def test_the_check_sees_a_difference(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    copy = tmp_path / "scripts/configuration.py"
    copy.write_text(GENERATOR.read_text(encoding="utf-8"), encoding="utf-8")

    def check(*option: str) -> int:
        return subprocess.run([sys.executable, str(copy), *option], capture_output=True).returncode

    assert check("--check") == 1, "there is no page yet"
    assert check() == 0
    assert check("--check") == 0
    page = tmp_path / "docs/configuration.md"
    page.write_text(page.read_text(encoding="utf-8").replace("default `5`", "default `6`"), encoding="utf-8")
    assert check("--check") == 1


def test_the_map_is_the_linters() -> None:
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    wanted = [
        (len(layers) - place, room) for place, layer in enumerate(layers) for room in layer.split(" | ")
    ]
    text = (REPOSITORY / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| `(\w+)(/?)` \| (.+) \|$", text, re.MULTILINE)
    assert [(int(floor), room) for floor, room, _, _ in rows] == wanted
    for _, room, is_folder, sentence in rows:
        if is_folder:
            assert sentence == import_module(f"freshvec.{room}").__doc__


def anchors(path: Path) -> set[str]:
    """What links may name in a document: its headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", names(DOCUMENTS))
def test_links_lead_somewhere(document: str) -> None:
    path = REPOSITORY / document
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if not link.startswith("https://"):
            file, _, anchor = link.partition("#")
            target = path.parent / file if file else path
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"])
def test_files_that_are_named_exist(document: str) -> None:
    """Names in backquotes with a slash in them, looked for from the top and from the package."""
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    missing = []
    for name in re.findall(r"`((?:[\w.-]+/)+[\w.*-]*)`", prose):
        places = (REPOSITORY, REPOSITORY / "daemon/freshvec")
        is_made = name.startswith(("build/", "dist/", ".cache/", "etc/"))
        if not is_made and not any(any(place.glob(name.rstrip("/"))) for place in places):
            missing.append(name)
    assert missing == []


def test_the_messages_of_the_troubleshooting_page_are_the_programs() -> None:
    """Each between “ and ” in a symptom, but those that are Postgres's own."""
    sources = (REPOSITORY / "daemon/freshvec").rglob("*.*")
    code = " ".join(p.read_text(encoding="utf-8") for p in sources if p.suffix in (".py", ".sql"))
    page = (REPOSITORY / "docs/troubleshooting.md").read_text(encoding="utf-8").replace("\n", " ")
    quoted = re.findall(r"“([^”]+)”", " ".join(re.findall(r"\*\*(.+?)\*\*", page)))
    theirs = ("operator does not exist: halfvec <=> double precision[]", "expected 384 dimensions, not 768")
    pieces = [piece.strip("`. ") for text in quoted if text not in theirs for piece in text.split("…")]
    assert [piece for piece in pieces if piece not in code] == []
    assert len(pieces) > 10


def test_the_old_name_is_in_the_changelog_alone() -> None:
    old = "embed" + "sync"
    found = {
        str(path.relative_to(REPOSITORY))
        for path in tracked()
        if old in path.read_text(encoding="utf-8", errors="ignore").lower() or old in str(path).lower()
    }
    assert found <= {"CHANGELOG.md"}


def test_make_without_a_target_lists_every_target() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "-C", str(REPOSITORY)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    (targets,) = re.findall(r"^\.PHONY: (.+)$", text, re.MULTILINE)
    listed = [line.split()[0] for line in done.stdout.splitlines()]
    assert sorted(listed) == sorted(targets.split())
