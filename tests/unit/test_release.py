"""The release script: it refuses whatever would release one version under the name of another."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import REPOSITORY

CHANGELOG = "# Changelog\n\n## [Unreleased]\n{}\n## [1.2.0]{}\n\n- Something.\n\n## [1.1.0] - 2026-01-01\n"


def git(root: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")
    subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose version, changelog and (missing) tag agree on 1.2.0."""
    (tmp_path / "daemon/freshvec").mkdir(parents=True)
    (tmp_path / "daemon/freshvec/__init__.py").write_text('"""A package."""\n\n__version__ = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG.format("", " - 2026-12-01"))
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return tmp_path


def check(root: Path, tag: str = "v1.2.0") -> tuple[int, str]:
    command = [sys.executable, str(REPOSITORY / "scripts/release.py"), tag, "--check", "--root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def commit(root: Path, path: str, text: str) -> None:
    (root / path).write_text(text)
    git(root, "commit", "--quiet", "--all", "--message", "changed")


def test_what_agrees_may_be_released(checkout: Path) -> None:
    assert check(checkout) == (0, "")
    git(checkout, "tag", "v1.2.0")
    assert check(checkout) == (0, "")


def test_another_tag_is_refused_for_each_reason_at_once(checkout: Path) -> None:
    code, message = check(checkout, "v1.3.0")
    assert code == 1
    assert "__init__.py says version 1.2.0" in message
    assert "the newest version in CHANGELOG.md is 1.2.0" in message


def test_a_version_without_its_section_is_refused(checkout: Path) -> None:
    commit(checkout, "daemon/freshvec/__init__.py", '__version__ = "1.3.0"\n')
    assert check(checkout, "v1.3.0")[1] == (
        "cannot release v1.3.0: the newest version in CHANGELOG.md is 1.2.0\n"
    )


def test_a_section_without_its_version_is_refused(checkout: Path) -> None:
    commit(checkout, "CHANGELOG.md", "# Changelog\n\n## [1.3.0] - 2026-12-02\n")
    assert "__init__.py says version 1.2.0" in check(checkout, "v1.3.0")[1]


@pytest.mark.parametrize(
    ("unreleased", "date", "message"),
    [("\n- More.\n", " - 2026-12-01", "under Unreleased"), ("", "", "gives 1.2.0 no date")],
)
def test_an_unfinished_changelog_is_refused(checkout: Path, unreleased: str, date: str, message: str) -> None:
    commit(checkout, "CHANGELOG.md", CHANGELOG.format(unreleased, date))
    code, said = check(checkout)
    assert code == 1
    assert message in said


def test_a_tag_on_another_commit_is_refused(checkout: Path) -> None:
    git(checkout, "tag", "v1.2.0")
    commit(checkout, "CHANGELOG.md", CHANGELOG.format("\n", " - 2026-12-01"))
    assert "the tag exists, on another commit" in check(checkout)[1]


def test_what_is_not_committed_is_not_released(checkout: Path) -> None:
    (checkout / "more.txt").write_text("more")
    assert "not committed" in check(checkout)[1]
