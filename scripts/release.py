"""Release a version: `release.py v0.1.0` checks that version, changelog and tag agree, then tags and builds.

With --check it only checks. Every fault is named at once, and nothing is done while there is one.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

VERSION = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)
SECTION = re.compile(r"^## \[([^\]]+)\](?: - (\d{4}-\d{2}-\d{2}))?$", re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tag", help="v and the version, as in v0.1.0")
    parser.add_argument("--check", action="store_true", help="only check")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="the checkout")
    arguments = parser.parse_args()
    faults = check(arguments.root, arguments.tag)
    for fault in faults:
        print(f"cannot release {arguments.tag}: {fault}", file=sys.stderr)
    if faults or arguments.check:
        return int(bool(faults))
    if not _git(arguments.root, "tag", "--list", arguments.tag):
        _git(arguments.root, "tag", "--annotate", arguments.tag, "--message", f"freshvec {arguments.tag[1:]}")
    return subprocess.run([sys.executable, "-m", "build", str(arguments.root)], check=False).returncode


def check(root: Path, tag: str) -> list[str]:
    """What differs; empty when version, changelog and tag agree and everything is committed."""
    return [*_version_faults(root, tag), *_changelog_faults(root, tag), *_git_faults(root, tag)]


def _version_faults(root: Path, tag: str) -> list[str]:
    found = VERSION.search((root / "daemon/freshvec/__init__.py").read_text(encoding="utf-8"))
    version = found.group(1) if found else "none"
    return [] if f"v{version}" == tag else [f"daemon/freshvec/__init__.py says version {version}"]


def _changelog_faults(root: Path, tag: str) -> list[str]:
    """The newest section must be this version's, with a date, and nothing may be left under Unreleased."""
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = list(SECTION.finditer(text))
    faults = []
    if sections and sections[0].group(1) == "Unreleased":
        end = sections[1].start() if len(sections) > 1 else len(text)
        if text[sections[0].end() : end].strip():
            faults.append("CHANGELOG.md lists changes under Unreleased; move them to the version's section")
        sections = sections[1:]
    newest = sections[0].group(1) if sections else "none"
    if f"v{newest}" != tag:
        faults.append(f"the newest version in CHANGELOG.md is {newest}")
    elif not sections[0].group(2):
        faults.append(f"CHANGELOG.md gives {newest} no date; write ## [{newest}] - YYYY-MM-DD")
    return faults


def _git_faults(root: Path, tag: str) -> list[str]:
    faults = []
    if _git(root, "status", "--porcelain"):
        faults.append("the checkout has changes that are not committed")
    if _git(root, "tag", "--list", tag):
        tagged = _git(root, "rev-list", "--max-count=1", tag)
        if tagged != _git(root, "rev-parse", "HEAD"):
            faults.append(f"the tag exists, on another commit ({tagged[:7]})")
    return faults


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
