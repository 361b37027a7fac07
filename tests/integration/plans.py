"""Plans of the statements that a session really runs, as auto_explain tells them, with the rows each node
read."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from tests.support import Connection

_EVERYTHING = """
LOAD 'auto_explain';
SET auto_explain.log_min_duration = 0;
SET auto_explain.log_analyze = on;
SET auto_explain.log_timing = off;
SET auto_explain.log_nested_statements = on;
SET auto_explain.log_format = json;
SET client_min_messages = log;
"""
TRANSITION = "a transition table"


@dataclass(frozen=True)
class Scan:
    """One scan of a table within a statement. `read` are the rows it looked at, also those filtered out."""

    kind: str
    table: str
    has_condition: bool
    read: int


@dataclass(frozen=True)
class Plan:
    statement: str
    scans: tuple[Scan, ...]

    def read(self, table: str) -> int:
        """Rows of a table that all scans of it looked at."""
        return sum(scan.read for scan in self.scans if scan.table == table)


@contextmanager
def recorded(connection: Connection) -> Iterator[list[Plan]]:
    """The plans of what the connection runs within, nested statements of functions and triggers too. Needs a
    superuser and a server that has auto_explain."""
    plans: list[Plan] = []

    def note(notice: psycopg.errors.Diagnostic) -> None:
        head, found, told = (notice.message_primary or "").partition("plan:\n")
        if found and head.startswith("duration"):
            explained = json.loads(told)
            plans.append(Plan(explained["Query Text"], tuple(_scans(explained["Plan"]))))

    connection.add_notice_handler(note)
    connection.execute(_EVERYTHING, prepare=False)
    plans.clear()
    try:
        yield plans
    finally:
        connection.remove_notice_handler(note)
        connection.execute("SET auto_explain.log_min_duration = -1")


def _scans(node: dict[str, Any]) -> Iterator[Scan]:
    is_transition = node["Node Type"] == "Named Tuplestore Scan"  # its name is not told
    table = TRANSITION if is_transition else node.get("Relation Name")
    if table and "Scan" in node["Node Type"]:
        removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        yield Scan(
            node["Node Type"],
            table,
            "Index Cond" in node or "Recheck Cond" in node,
            round((node["Actual Rows"] + removed) * node["Actual Loops"]),
        )
    for child in node.get("Plans", ()):
        yield from _scans(child)
