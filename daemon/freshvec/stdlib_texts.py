"""Real texts that come with every Python: the docstrings of its standard library."""

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path

_SKIPPED = {"test", "tests", "idle_test", "site-packages", "lib2to3", "__pycache__"}


def docstrings() -> Iterator[tuple[str, str]]:
    """Qualified name and docstring of every documented module, class and function, in a fixed order."""
    top = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(top.rglob("*.py")):
        inside = path.relative_to(top)
        if _SKIPPED.isdisjoint(inside.parts):
            try:
                tree = ast.parse(path.read_text(encoding="utf-8"))
            except (SyntaxError, UnicodeDecodeError):
                continue
            yield from _documented(tree, ".".join(inside.with_suffix("").parts))


def _documented(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node)
        if text:
            yield name, text
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield from _documented(child, f"{name}.{child.name}")
