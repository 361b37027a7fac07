"""Rests: rows that somebody else has, and that are read again after a pause, which grows as long as it is so.

Their queue entries stay where they are, and count as handed out meanwhile. So nothing is lost with this
process, and a row that is locked for hours costs next to nothing.
"""

import math
import threading
import time
from dataclasses import dataclass

from freshvec.records import Entry, Key, Urgency

_FIRST_SECONDS, _LONGEST_SECONDS = 0.01, 10.0
MANY = 5000  # rows; then no other bulk work is begun


@dataclass(frozen=True, slots=True)
class Rest:
    """A row that is to be read again later, with the entries that are to answer."""

    urgency: Urgency
    key: Key
    entries: tuple[Entry, ...]


class Rests:
    """Of one sync. Called on the reader's thread and the writer's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: dict[Rest, float] = {}
        self._pauses: dict[Key, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def begin(self, rest: Rest) -> None:
        """The row was not to be had: twice as long a pause as the last time."""
        with self._lock:
            pause = min(_LONGEST_SECONDS, 2 * self._pauses.get(rest.key, _FIRST_SECONDS / 2))
            self._pauses[rest.key] = pause
            self._until[rest] = time.monotonic() + pause

    def forgive(self, keys: set[Key]) -> None:
        """These rows were to be had."""
        if self._pauses:
            with self._lock:
                for key in keys & self._pauses.keys():
                    del self._pauses[key]

    def entries(self, urgency: Urgency) -> list[Entry]:
        """What is not to be read yet."""
        with self._lock:
            return [entry for rest in self._until if rest.urgency is urgency for entry in rest.entries]

    def end_due(self) -> bool:
        """End the pauses that are over; True where one was, so that the queue is to be read anew."""
        if not self._until:
            return False
        with self._lock:
            now = time.monotonic()
            over = [rest for rest, until in self._until.items() if until <= now]
            for rest in over:
                del self._until[rest]
            return bool(over)

    def patience(self) -> float:
        """Seconds until the next pause is over; infinity without one."""
        with self._lock:
            return max(0.0, min(self._until.values(), default=math.inf) - time.monotonic())
