"""The threads of a model, which always encode the most urgent batch next: one on a CPU, two on a GPU."""

import heapq
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakSet

from loguru import logger

from freshvec.encoding.budget import BatchBudget
from freshvec.encoding.machine import DeviceMemory, gpu_memory
from freshvec.encoding.room import Room, bare
from freshvec.encoding.session import LANES
from freshvec.encoding.vector_cache import RecentVectors
from freshvec.errors import DeviceError, EncodingError
from freshvec.records import Encoder, OutOfMemoryError, Tokens, Urgency, Vector

# After so many batches the oldest waiting one goes first, whatever its urgency: none waits for ever.
_FAIR_TURN = 8
# For so long after an urgent batch the others are encoded in pieces of about so long, urgent ones between.
_ALERT_SECONDS = 2.0
_PIECE_SECONDS = 0.03
_SMALLEST_PIECE = 64  # padded tokens
_PROBE = "freshvec"
_PATIENCE = 3  # batches in a row that the runtime cannot encode before this process gives up
_GONE = "its model was taken out of this process", "Try again, by the sync's name."
_ENDED = EncodingError("encode", "a search", *_GONE, retryable=True)
Done = Callable[[list[Vector | Exception]], None]


@dataclass(order=True, slots=True)
class Job:
    """A batch to encode. `done` is called on a thread of the dispatcher with one vector or error per text."""

    urgency: Urgency
    order: int
    tokens: list[Tokens] = field(compare=False)
    size: int = field(compare=False)  # the budget it was planned for
    owner: object = field(compare=False)
    done: Done = field(compare=False)


class Dispatcher:
    """Encodes batches one after the other. An urgent batch waits for one other at most, and where urgent ones
    came lately, for a piece of it.

    On a GPU two are under way: while one is computed, the next is padded and copied there.
    """

    def __init__(self, encoder: Encoder, budget: BatchBudget) -> None:
        self.encoder = encoder
        self.budget = budget
        self.recent = RecentVectors(encoder.dimension)
        self.busy_seconds = 0.0
        self.tokens = self.padded = self.batches = 0
        self.failed = 0  # texts
        self.out_of_memory = 0  # times
        self.memory: DeviceMemory | None = None  # of the device, when last measured
        self.lost: DeviceError | None = None  # set once only another process can encode
        self._failures = 0  # batches in a row
        self._is_full = False  # of memory, whatever is tried
        self._jobs: list[Job] = []
        self._changed = threading.Condition()
        self._noting = threading.Lock()  # of what the lanes find out
        self._submitted = self._turn = 0
        self._urgent_at = -math.inf  # when the last urgent batch came
        self._rate = 0.0  # padded tokens per second, of the last batch that was not urgent
        self._stopping = False
        self._ended: WeakSet[object] = WeakSet()  # owners
        lanes = 1 if encoder.device == "cpu" else LANES
        self._threads = [
            threading.Thread(target=self._run, name=f"encoder {lane}", daemon=True) for lane in range(lanes)
        ]
        for thread in self._threads:
            thread.start()

    def submit(
        self, urgency: Urgency, tokens: list[Tokens], size: int, done: Done, owner: object = None
    ) -> None:
        """Queue a batch that was planned for `size` padded tokens.

        `done` gets one vector `[dimension]` or error per text, in order; it is called on a thread of
        the dispatcher.
        """
        with self._changed:
            if self._stopping and urgency is Urgency.QUERY:
                done([_ENDED] * len(tokens))
            if self._stopping or owner in self._ended:
                return
            self._submitted += 1
            if urgency <= Urgency.LIVE:
                self._urgent_at = time.monotonic()
            heapq.heappush(self._jobs, Job(urgency, self._submitted, tokens, size, owner, done))
            self._changed.notify()

    @property
    def waiting(self) -> int:
        """Batches that wait, without those in hand."""
        with self._changed:
            return len(self._jobs)

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping

    def forget(self, owner: object, *, for_good: bool = False) -> None:
        """Drop the waiting batches of one owner, who does not want them any more; `for_good`: nor others."""
        with self._changed:
            if for_good:  # a step of its own may be about to bring some
                self._ended.add(owner)
            self._jobs = [job for job in self._jobs if job.owner is not owner]
            heapq.heapify(self._jobs)

    def measure(self) -> None:
        """Read the device's memory into `memory`; takes some milliseconds on a GPU."""
        self.memory = gpu_memory(self.encoder.device)

    def stop(self, timeout: float) -> None:
        """Finish those in hand, drop the rest, of which searches are told, and wait at most `timeout` s."""
        with self._changed:
            self._stopping = True
            waiting, self._jobs = self._jobs, []
            self._changed.notify_all()
        for job in waiting:
            if job.urgency is Urgency.QUERY:
                job.done([_ENDED] * len(job.tokens))
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _next(self) -> Job | None:
        """The job whose turn it is, None when it is told to stop. Waits for one."""
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
        """A lane: one of the dispatcher's threads."""
        try:
            while (job := self._next()) is not None:
                self._work(job)
                del job  # whose owner may have ended, and holds more, while this waits for the next
        except Exception as error:  # a fault of ours: without this thread nobody would encode any more
            logger.exception("the encoder's thread has ended: {}", error)
            self._give_up(f"{type(error).__name__}: {error}")

    def _work(self, job: Job) -> None:
        """Encode a batch, with urgent ones between its pieces."""
        results: list[Vector | Exception] = []
        room = Room(self.budget.ceiling)
        seconds = 0.0
        pieces = self._pieces(job)
        for place, piece in enumerate(pieces):
            if place:
                self._let_urgent_go_first()
            started = time.perf_counter()
            results += self._encode(piece, room)
            # Each of two batches under way takes about twice its own time.
            seconds += (time.perf_counter() - started) / len(self._threads)
        real, padded = sum(map(len, job.tokens)), _padded(job.tokens)
        with self._noting:
            self._judge(results)
            self.busy_seconds += seconds
            self.tokens += real
            self.padded += padded
            self.batches += 1
            self.failed += sum(isinstance(result, Exception) for result in results)
            if job.urgency > Urgency.LIVE:
                self._rate = padded / max(seconds, 1e-6)
            if len(pieces) == 1:
                self.budget.observe(job.size, padded, real, seconds)
        job.done(results)

    def _pieces(self, job: Job) -> list[list[Tokens]]:
        """A batch as a whole; on a CPU, and where somebody may wait, in pieces that take a moment each."""
        is_alert = time.monotonic() - self._urgent_at < _ALERT_SECONDS
        if job.urgency <= Urgency.LIVE or len(self._threads) > 1 or not is_alert:
            return [job.tokens]
        longest = max(1, *map(len, job.tokens))
        rows = max(1, int(max(_SMALLEST_PIECE, self._rate * _PIECE_SECONDS)) // longest)
        return [job.tokens[start : start + rows] for start in range(0, len(job.tokens), rows)]

    def _let_urgent_go_first(self) -> None:
        """Before the next piece of a batch; a few, so that it comes to its end."""
        for _ in range(_FAIR_TURN):
            with self._changed:
                if not self._jobs or self._jobs[0].urgency > Urgency.LIVE:
                    return
                urgent = heapq.heappop(self._jobs)
            self._work(urgent)

    def _encode(self, tokens: list[Tokens], room: Room) -> list[Vector | Exception]:
        """One vector or error per text, in order. Halving finds a bad text, so that the others get theirs."""
        without_room = None
        try:
            return list(self.encoder.encode(tokens))
        except OutOfMemoryError as error:
            without_room = str(error)  # the error itself, by its traceback, would keep the session
        except Exception as error:  # whatever the runtime raises, the other texts are encoded
            if isinstance(error, EncodingError) and error.retryable:
                return [bare(error)] * len(tokens)  # no text is at fault
            if len(tokens) == 1:
                return [bare(self._blame(error))]
        if without_room is not None:
            self.out_of_memory += 1
            if len(tokens) == 1:
                return [self._in_new_session(tokens[0], without_room, room)]
            if room.is_full:
                return list(map(room.error, tokens))
            self._lower(_padded(tokens), room)
        middle = len(tokens) // 2
        return self._encode(tokens[:middle], room) + self._encode(tokens[middle:], room)

    def _lower(self, padded: int, room: Room) -> None:
        """Plan smaller batches from now on. A text alone says nothing of them: its attention takes the square
        of its length."""
        before = self.budget.ceiling
        memory = self.budget.out_of_memory(padded)
        room.ceiling = room.ceiling or memory.padded
        if memory.padded != before:
            message = "out of memory with {} padded tokens; at most {} for {:.0f} minutes"
            logger.warning(message, padded, memory.padded, memory.seconds / 60)

    def _judge(self, results: list[Vector | Exception]) -> None:
        """Set `lost` when new sessions have not helped, so that the process ends.

        Only a new process can recover memory that stays full, or a GPU whose context is broken. After any
        other failure on a CPU the pipeline begins anew, with growing delays.
        """
        errors = [result for result in results if isinstance(result, EncodingError) and result.retryable]
        hopeless = self._is_full or self.encoder.device != "cpu"
        self._failures = self._failures + 1 if errors and hopeless else 0
        if self._failures == _PATIENCE:
            self._give_up(f"{self._failures} batches in a row failed; {errors[-1]}")

    def _give_up(self, problem: str) -> None:
        self.lost = DeviceError(
            "encode",
            f"on {self.encoder.device} in this process",
            problem,
            "It ends, so that its supervisor starts another; nothing is lost.",
        )

    def _in_new_session(self, text: Tokens, problem: str, room: Room) -> Vector | Exception:
        """Encode a text that did not fit alone, in a new session: the old one itself holds the memory.

        A session takes seconds to load. So a text that is as long as one which found no room in one gets no
        other, and none does where nothing finds room.
        """
        if len(text) >= room.none_from:
            return room.error(text)
        vector: Vector | None = None
        try:
            self.encoder.rebuild()
            vector = self.encoder.encode([text])[0]
        except Exception as again:
            room.problem = f"{problem}; and after loading the model again: {again}"
            room.none_from = len(text) if self._broken() is None else 0
        self._is_full = room.is_full
        # Halving has lowered the ceiling to a text, because of that text or of who else fills the device.
        if room.ceiling:
            self.budget.allow(room.before if room.is_full else room.ceiling)
        return room.error(text) if vector is None else vector

    def _blame(self, error: Exception) -> Exception:
        """`error` itself where a plain text can still be encoded; otherwise the runtime is at fault."""
        broken = self._broken()
        if broken is None:
            return error
        remedy = "See the log of the model's runtime."
        return EncodingError("encode", "any text", str(broken), remedy, retryable=True)

    def _broken(self) -> Exception | None:
        """What the runtime says to a plain text; None where it encodes it."""
        try:
            self.encoder.encode(self.encoder.tokenize([_PROBE]))
        except Exception as error:
            return error
        return None


def _padded(tokens: list[Tokens]) -> int:
    return max(map(len, tokens)) * len(tokens)
