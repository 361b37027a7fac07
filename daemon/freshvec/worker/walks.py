"""Walks of a sync whose changes can only be found by walking: one, and a rest of ten times its length."""

import time

from freshvec.db import Connection
from freshvec.pipeline.pipeline import Pipeline
from freshvec.schema.apply import ask_for_walk

_REST = 10.0  # times as long as a walk takes


class Walks:
    """Asks for them, at the sweeps of a keeper."""

    def __init__(self, name: str, sweep_seconds: float) -> None:
        self._name = name
        self._sweep_seconds = sweep_seconds
        self._due = 0.0
        self._began: float | None = None  # the walk under way, as far as it was seen

    def rest(self) -> None:
        """None is due before the next sweep: a pipeline begins."""
        self._due = time.monotonic() + self._sweep_seconds

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
