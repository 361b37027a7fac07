"""How long the stages of one sync's work took, all together since the start."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

Stage = Literal["read", "tokenise", "write"]


@dataclass(frozen=True)
class Spent:
    """So many runs of a stage, and the seconds they took together."""

    runs: int = 0
    seconds: float = 0.0


class Stages:
    """Thread-safe. Encoding is not among them: a model's batches hold texts of several syncs' turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spent: dict[Stage, Spent] = {"read": Spent(), "tokenise": Spent(), "write": Spent()}

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Count one run of the stage, and its time; not one that failed."""
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        with self._lock:
            before = self._spent[stage]
            self._spent[stage] = Spent(before.runs + 1, before.seconds + seconds)

    def totals(self) -> dict[Stage, Spent]:
        """All stages since the start."""
        with self._lock:
            return dict(self._spent)
