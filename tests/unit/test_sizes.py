"""Modules, functions and lines are no larger than CONTRIBUTING.md allows."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import REPOSITORY

FOLDERS = ("daemon", "docs", "migrations", "scripts", "tests")
SUFFIXES = (".md", ".py", ".sql")
# Databases keep the checksums of migrations, so these do not change any more.
APPLIED = ("0001_schema.sql", "0002_watching.sql", "0003_index.sql")
FILES = sorted(
    path
    for place in (*REPOSITORY.glob("*.md"), *(REPOSITORY / folder for folder in FOLDERS))
    for path in (place.rglob("*.*") if place.is_dir() else [place])
    if path.suffix in SUFFIXES and path.name not in APPLIED
)


def too_large(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if len(line) > 110:
            yield f"line {number}: {len(line)} characters"
    if path.suffix != ".py":
        return
    if len(lines) > 300:
        yield f"module: {len(lines)} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            if length > 45:
                yield f"function {node.name}: {length} lines"


def test_nothing_is_too_large() -> None:
    found = [f"{path.relative_to(REPOSITORY)}, {what}" for path in FILES for what in too_large(path)]
    assert found == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_of_each_kind_are_looked_at(suffix: str) -> None:
    assert len([path for path in FILES if path.suffix == suffix]) > 10


@pytest.mark.parametrize(
    ("name", "allowed", "more", "said"),
    [
        ("module.py", "x = 1\n" * 300, "x = 1\n", "module: 301 lines"),
        ("function.py", "def f():\n" + "    x = 1\n" * 44, "    x = 1\n", "function f: 46 lines"),
        ("method.py", "class C:\n async def f():\n" + "  x = 1\n" * 44, "  x = 1\n", "function f: 46 lines"),
        ("query.sql", "-" * 110, "-", "line 1: 111 characters"),
        ("page.md", "é" * 110, "é", "line 1: 111 characters"),
    ],
)
def test_one_more_is_too_many(name: str, allowed: str, more: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(allowed, encoding="utf-8")
    assert list(too_large(path)) == []
    path.write_text(allowed + more, encoding="utf-8")
    assert list(too_large(path)) == [said]
