"""Walks for what no trigger notes: one after a crash that emptied unlogged tables; of a sync that may have no
triggers one, and a rest of ten times its length."""

import time

from freshvec.db import Connection, queries, quoted_name
from freshvec.pipeline.pipeline import Pipeline
from freshvec.schema.apply import ask_for_walk
from freshvec.source.bound import BoundSync

_SQL = queries("worker/walks")
_REST = 10.0  # times as long as a walk takes


class Walks:
    """Asks for them, at the sweeps of a keeper."""

    def __init__(self, name: str, sweep_seconds: float) -> None:
        self._name = name
        self._sweep_seconds = sweep_seconds
        self._due = 0.0
        self._began: float | None = None  # the walk under way, as far as it was seen

    def begin(self, connection: Connection, bound: BoundSync) -> None:
        """A pipeline begins: none is due before the next sweep, unless a crash may have emptied tables."""
        self._due = time.monotonic() + self._sweep_seconds
        tables = [quoted_name(*name) for name in (*bound.tables, ("freshvec", f"queue_{bound.name}"))]
        relations = [relation.oid for relation in bound.relations]
        connection.execute(_SQL["begin"], {"name": bound.name, "relations": relations, "tables": tables})

    def tend(self, connection: Connection, pipeline: Pipeline) -> None:
        """Ask for one where it is due."""
        now = time.monotonic()
        if pipeline.is_walking:
            self._began = now if self._began is None else self._began  # others ask for walks, too
            self._due = now + _REST * (now - self._began)
        elif now >= self._due:
            ask_for_walk(connection, self._name, "changes may be missed")
            pipeline.look()
            self._began, self._due = now, now + self._sweep_seconds
        else:
            self._began = None
