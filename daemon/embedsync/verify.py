"""Verify: compare every row's hash with its embedding's, in short reads, and say what is not fresh."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from psycopg import sql

from embedsync import queue
from embedsync.db import Connection, queries, translated
from embedsync.records import Key
from embedsync.source import BoundSync
from embedsync.target import find_orphans

_SQL = queries("verify")
_PAGE = 5000
_EXAMPLES = 5


@dataclass
class Report:
    """What was found. `problems` counts by kind: missing, different, other model, failed, orphaned."""

    sync: str
    rows: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Key]] = field(default_factory=dict)

    @property
    def is_fresh(self) -> bool:
        return not self.problems

    def note(self, problem: str, key: Key) -> None:
        self.problems[problem] += 1
        if len(self.examples.setdefault(problem, [])) < _EXAMPLES:
            self.examples[problem].append(key)


def verify(
    connection: Connection, bound: BoundSync, *, repair: bool = False, on_page: Callable[[int], None] = lambda rows: None
) -> Report:
    """Walk source and target by key. With `repair`, whatever is wrong is queued for the worker."""
    report = Report(bound.name)
    with translated("verify", f"sync {bound.name!r}"):
        _walk_source(connection, bound, report, repair, on_page)
        _walk_target(connection, bound, report, repair)
        if repair and report.problems:
            connection.execute("SELECT embedsync.ring(%s)", (bound.name,))
    return report


def _walk_source(connection: Connection, bound: BoundSync, report: Report, repair: bool, on_page: Callable[[int], None]) -> None:
    first = bound.compose(_SQL["page"], beyond=sql.SQL(""))
    following = bound.compose(_SQL["page"], beyond=bound.compose("WHERE ({keys}) > ({after})"))
    after: Key | None = None
    while True:
        params = {"limit": _PAGE, "fingerprint": bound.model.fingerprint} | (bound.key_values(after) if after else {})
        found = connection.execute(following if after else first, params).fetchall()
        report.rows += len(found)
        wrong = [(row[:-1], row[-1]) for row in found if row[-1] is not None]
        for key, problem in wrong:
            report.note(problem, key)
        if repair and wrong:
            queue.append(connection, bound, [key for key, _ in wrong])
        on_page(len(found))
        if len(found) < _PAGE:
            return
        after = found[-1][:-1]


def _walk_target(connection: Connection, bound: BoundSync, report: Report, repair: bool) -> None:
    after: Key | None = None
    while True:
        after, orphans = find_orphans(connection, bound, after, _PAGE)
        for key in orphans:
            report.note("orphaned", key)
        if repair and orphans:
            queue.append(connection, bound, orphans)
        if after is None:
            return
