"""Verify: compare every row's hash with its embedding's, in short reads, and say what is not fresh."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg

from freshvec.capture import queue
from freshvec.db import Connection, queries, translated
from freshvec.records import Key
from freshvec.scans.keyset import KeysetPages
from freshvec.scans.orphans import OrphanScan
from freshvec.source.bound import BoundSync
from freshvec.source.rows import is_of_the_row

_SQL = queries("scans/verify")
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


def verify(connection: Connection, bound: BoundSync, *, repair: bool = False) -> Report:
    """Walk source and target by key. With `repair`, whatever is wrong is queued for the worker."""
    report = Report(bound.name)
    with translated("verify", f"sync {bound.name!r}"):
        _walk_source(connection, bound, report, repair)
        _walk_target(connection, bound, report, repair)
        if repair and report.problems:
            connection.execute(bound.compose(_SQL["ring"]))
    return report


def _walk_source(connection: Connection, bound: BoundSync, report: Report, repair: bool) -> None:
    for found in _pages(connection, bound):
        report.rows += len(found)
        wrong = [(row[:-1], row[-1]) for row in found if row[-1] is not None]
        for key, problem in wrong:
            report.note(problem, key)
        if repair and wrong:
            queue.append(connection, bound, [key for key, _ in wrong])


def _pages(connection: Connection, bound: BoundSync) -> Iterator[list[tuple[Any, ...]]]:
    """Pages of keys and what is wrong with each row. A row whose text cannot be read is found by halving its page."""
    pages = KeysetPages(connection, bound, _SQL["page"])
    limit = _PAGE
    while not pages.is_exhausted:
        try:
            found = pages.read(limit, fingerprint=bound.model.fingerprint)
        except psycopg.Error as error:
            if not is_of_the_row(error):
                raise
            if limit > 1:
                limit //= 2
                continue
            alone = KeysetPages(connection, bound, _SQL["key"], after=pages.after)
            found = [(*key, "failed") for key in alone.read(1)]
            pages.after, pages.is_exhausted = alone.after, alone.is_exhausted
        limit = min(_PAGE, 2 * limit)
        yield found


def _walk_target(connection: Connection, bound: BoundSync, report: Report, repair: bool) -> None:
    scan = OrphanScan(connection, bound)
    while not scan.is_done:
        for key in scan.queue(_PAGE) if repair else scan.find(_PAGE):
            report.note("orphaned", key)
