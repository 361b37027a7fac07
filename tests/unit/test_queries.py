"""Named queries: each is used by the code that loads its file, and none is asked for that is not there."""

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

import freshvec
from freshvec.db import queries

PACKAGE = Path(freshvec.__file__).parent
SQL = sorted(
    str(path.relative_to(PACKAGE).with_suffix(""))
    for path in PACKAGE.rglob("*.sql")
    if "_data" not in path.parts
)


@cache
def _loads(tree: ast.Module) -> set[str]:
    """The files a module loads by `queries("name")`."""
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "queries"
    ]
    return {str(call.args[0].value) for call in calls if isinstance(call.args[0], ast.Constant)}


@cache
def _texts(tree: ast.Module) -> set[str]:
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def _asked(tree: ast.Module) -> set[str]:
    """The names in `_SQL["name"]`, `_SQL["one" if … else "other"]`, `queries("file")["name"]`, and
    `self._queries["name"]` and `self.statements["name"]` where they are composed beforehand."""
    asked = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Subscript):
            continue
        loaded = isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "queries"
        composed = isinstance(node.value, ast.Attribute) and node.value.attr in ("_queries", "statements")
        if loaded or composed or getattr(node.value, "id", "") == "_SQL":
            names = (
                [node.slice.body, node.slice.orelse] if isinstance(node.slice, ast.IfExp) else [node.slice]
            )
            asked |= {str(name.value) for name in names if isinstance(name, ast.Constant)}
    return asked


MODULES = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
LOADERS = {path: tree for path, tree in MODULES.items() if _loads(tree)}


def test_every_file_is_loaded_and_every_loaded_file_is_there() -> None:
    assert set().union(*map(_loads, LOADERS.values())) == set(SQL)


@pytest.mark.parametrize("name", SQL)
def test_every_query_of_a_file_is_used_where_the_file_is_loaded(name: str) -> None:
    texts: set[str] = set().union(*(_texts(tree) for tree in LOADERS.values() if name in _loads(tree)))
    assert queries(name), "the file has queries"
    assert sorted(set(queries(name)) - texts) == []


@pytest.mark.parametrize("path", LOADERS, ids=lambda path: path.stem)
def test_every_query_asked_for_is_there(path: Path) -> None:
    known = set().union(*(queries(name) for name in _loads(LOADERS[path])))
    assert _asked(LOADERS[path]), "the test sees what is asked for"
    assert sorted(_asked(LOADERS[path]) - known) == []


@pytest.mark.parametrize("name", SQL)
def test_no_query_hides_another_and_each_says_what_it_is_for(name: str) -> None:
    seen: dict[str, int] = defaultdict(int)
    for line in (PACKAGE / f"{name}.sql").read_text().splitlines():
        head, colon, purpose = line.partition(":")
        if line.startswith("-- ") and colon and head[3:].isidentifier():
            seen[head[3:]] += 1
            assert purpose.strip(), line
    assert set(seen) == set(queries(name))
    assert [query for query, count in seen.items() if count > 1] == []
    assert all(text.strip() for text in queries(name).values())
