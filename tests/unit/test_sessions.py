"""Every session of ours says in pg_stat_activity what it is for."""

import ast
from pathlib import Path

import freshvec

PACKAGE = Path(freshvec.__file__).parent


def test_nothing_connects_without_a_name() -> None:
    found = 0
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "psycopg.connect",
                "Connection.connect",
            ):
                found += 1
                names = [keyword for keyword in node.keywords if keyword.arg == "application_name"]
                assert [name for name in names if "freshvec " in ast.unparse(name.value)], (
                    f"{path}:{node.lineno}"
                )
    assert found == 2, "the daemon's, and the demo's for the application it plays"
