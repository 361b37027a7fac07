"""One thread a model that always runs the most urgent batch next."""

import heapq
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from embedsync.errors import EncodingError
from embedsync.records import Encoder, Tokens, Urgency, Vector

# Every so many batches the oldest waiting one goes first, whatever its urgency: none waits for ever.
_FAIR_TURN = 8
_PROBE = "embedsync"


@dataclass(order=True, slots=True)
class Job:
    """A batch to encode. `done` is called on the dispatcher's thread with a vector or an error a text."""

    urgency: Urgency
    order: int
    tokens: list[Tokens] = field(compare=False)
    done: Callable[[list[Vector | Exception]], None] = field(compare=False)


class Dispatcher:
    """Encodes batches one after the other. Batches are small, so an urgent one waits for one batch at most."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.busy_seconds = 0.0
        self.failure: Exception | None = None
        self._jobs: list[Job] = []
        self._changed = threading.Condition()
        self._submitted = 0
        self._turn = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="encoder", daemon=True)
        self._thread.start()

    def submit(self, urgency: Urgency, tokens: list[Tokens], done: Callable[[list[Vector | Exception]], None]) -> None:
        """Queue a batch."""
        with self._changed:
            self._submitted += 1
            heapq.heappush(self._jobs, Job(urgency, self._submitted, tokens, done))
            self._changed.notify()

    def stop(self, timeout: float) -> None:
        """Finish the batch in hand, forget the rest."""
        with self._changed:
            self._stopping = True
            self._jobs.clear()
            self._changed.notify()
        self._thread.join(timeout)

    def _next(self) -> Job | None:
        with self._changed:
            while not self._jobs and not self._stopping:
                self._changed.wait()
            if self._stopping:
                return None
            self._turn += 1
            if self._turn % _FAIR_TURN:
                return heapq.heappop(self._jobs)
            oldest = min(self._jobs, key=lambda job: job.order)
            self._jobs.remove(oldest)
            heapq.heapify(self._jobs)
            return oldest

    def _run(self) -> None:
        while (job := self._next()) is not None:
            started = time.perf_counter()
            results = self._encode(job.tokens)
            self.busy_seconds += time.perf_counter() - started
            job.done(results)

    def _encode(self, tokens: list[Tokens]) -> list[Vector | Exception]:
        """Vectors in order; a text that cannot be encoded is found by halving, so that it costs no other its turn."""
        try:
            return list(self.encoder.encode(tokens))
        except Exception as error:  # whatever the runtime raises, the other texts go on
            if len(tokens) > 1:
                middle = len(tokens) // 2
                return self._encode(tokens[:middle]) + self._encode(tokens[middle:])
            return [self._blame(error)]

    def _blame(self, error: Exception) -> Exception:
        """`error` itself where a plain text still encodes; otherwise the runtime is at fault, not the text."""
        try:
            self.encoder.encode(self.encoder.tokenize([_PROBE]))
        except Exception as probe:  # the runtime is broken
            return EncodingError("encode", "any text", str(probe), "See the log of the model's runtime.", retryable=True)
        return error
