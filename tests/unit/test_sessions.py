"""Every session of ours says in pg_stat_activity what it is for."""

import ast
import re
from pathlib import Path

import freshvec

PACKAGE = Path(freshvec.__file__).parent


def test_nothing_connects_without_a_name() -> None:
    found = 0
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) != "psycopg.connect":
                continue
            found += 1
            given = ast.unparse(node)
            assert re.search(r"application_name\W+f?['\"]freshvec ", given), f"{path}:{node.lineno}: {given}"
    assert found == 2, "the daemon's, and the demo's for the application it plays"
