"""Every session of ours says in pg_stat_activity what it is for."""

import ast
from pathlib import Path

import freshvec

PACKAGE = Path(freshvec.__file__).parent


def test_all_connect_in_one_place() -> None:
    """db.connect gives the name; the demo names the application that it plays."""
    found = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("psycopg.connect", "Connection.connect", "psycopg.Connection.connect")
    ]
    assert sorted(found) == ["cli/demo.py", "db.py"]
