"""The index of one sync in a worker: looked at now and then, built once every row has its vector, and built
again where that failed."""

import time
from collections.abc import Callable
from weakref import ref

from loguru import logger

from freshvec.backoff import Backoff
from freshvec.db import Connection, as_sent, translated
from freshvec.errors import DatabaseError
from freshvec.pipeline.pipeline import Pipeline
from freshvec.source.bound import BoundSync
from freshvec.target import building, index
from freshvec.target.building import Build, Builds

_SAY_SECONDS = 30.0  # how far a build is
_BUSY_SECONDS = 1.0  # between looks while somebody is at it


class Indexing:
    """Tended by the keeper. With `once` it begins when every row is fresh, and fails where a build does."""

    def __init__(
        self, builds: Builds, sweep_seconds: float, on_event: Callable[[], None], *, once: bool
    ) -> None:
        self.is_settled = False  # at the last look nothing was to be done
        self._builds = builds
        self._sweep_seconds = sweep_seconds
        self._on_event = on_event
        self._once = once
        self._build: Build | None = None
        self._backoff = Backoff(first=2.0, cap=600.0)
        self._due = 0.0
        self._was_walking = True
        self._tended: Callable[[], Pipeline | None] = lambda: None  # not held: its model is large
        self._said_at = 0.0
        self._trouble: str | None = None
        self._told: str | None = None  # once each

    def look_soon(self) -> None:
        """At the next turn, unless an attempt has failed and the next one is set."""
        if self._trouble is None:
            self._due = 0.0

    def tend(self, connection: Connection, pipeline: Pipeline | None) -> None:
        """Do what is due. Raises DatabaseError, with `once` also for a build that failed."""
        if pipeline is None:
            return
        bound = pipeline.bound
        if self._build is not None and self._build.is_over:
            self._end(connection, self._build)
        is_walking, was_walking = pipeline.is_walking, self._was_walking
        is_new, self._was_walking = pipeline is not self._tended(), is_walking
        self._tended = ref(pipeline)
        if is_new or (was_walking and not is_walking):
            self.look_soon()
        is_awaited = self._once and not pipeline.fresh.is_set()  # else the walk of before would count
        if is_awaited or time.monotonic() < self._due:
            return
        try:
            with translated("look at the index of", f"sync {bound.name!r}"):
                self._look(connection, bound)
        except DatabaseError as error:
            if connection.broken or self._once:
                raise
            self._due = time.monotonic() + self._sweep_seconds
            self._tell(f"sync {bound.name}: {error}")  # no reason to end the pipeline

    def _look(self, connection: Connection, bound: BoundSync) -> None:
        seen = index.look(connection, bound)
        step = None if seen is None else index.next_step(bound, seen)
        is_busy = self._build is not None or (seen is not None and seen.builder is not None)
        self.is_settled = step is None and not is_busy
        self._due = time.monotonic() + (
            min(_BUSY_SECONDS, self._sweep_seconds) if is_busy else self._sweep_seconds
        )
        if seen is None:
            return
        if is_busy:
            self._watch(connection, bound, seen)
        elif step is not None and not seen.may_build:
            self._deny(connection, bound, seen)
        elif step is not None:
            self._build = self._builds.begin(bound, self._on_event)
            self._due = time.monotonic() + min(_BUSY_SECONDS, self._sweep_seconds)
        else:
            if seen.trouble is not None:
                self._note(connection, bound.name, None)
            self._trouble = None
            self._remark(bound, seen)

    def _watch(self, connection: Connection, bound: BoundSync, seen: index.Seen) -> None:
        """Say how far it is. What is built and no more declared is ended."""
        if seen.building is None:
            return
        if seen.building != index.name_of(bound) and self._build is None:
            logger.info(
                "sync {}: index {} is declared no more; its build is ended", bound.name, seen.building
            )
            building.interrupt(connection, bound.name)
            return
        known = building.progress(connection, bound, seen.building)
        if known is None or time.monotonic() - self._said_at < _SAY_SECONDS:
            return
        self._said_at = time.monotonic()
        phase, share, waits_for = known
        done = "" if share is None else f", {share:.0%}"
        waits = "" if waits_for is None else f", waits for backend {waits_for}"
        logger.info("sync {}: index {}: {}{}{}", bound.name, seen.building, phase, done, waits)

    def _end(self, connection: Connection, build: Build) -> None:
        """After a build: at once another look, or a later attempt."""
        self._build, self._due = None, 0.0
        if build.error is None:
            self._backoff.reset()
            return
        if self._once:
            error = build.error
            raise DatabaseError(error.operation, error.subject, error.problem, error.remedy) from error
        delay = self._backoff.next_delay()
        self._due = time.monotonic() + delay
        self._note(connection, build.bound.name, str(build.error))
        logger.error("sync {}: {} (next attempt in {:.1f} s)", build.bound.name, build.error, delay)

    def _deny(self, connection: Connection, bound: BoundSync, seen: index.Seen) -> None:
        """What this worker may not do is said, with the command for who may."""
        self.is_settled = True
        step = index.next_step(bound, seen)
        assert step is not None
        if step.verb == "build":
            statement = index.building(bound, seen.vectors)
        else:
            statement = index.dropping(bound.vectors_name[0], step.name)
        target = ".".join(bound.vectors_name)
        trouble = (
            f"this worker may not {step.verb} the index of {target}. Run "
            f"`freshvec apply {bound.declared_name}` as its owner, or: {as_sent(statement, connection)}"
        )
        self._tell(f"sync {bound.name}: {trouble}")
        self._note(connection, bound.name, trouble)

    def _remark(self, bound: BoundSync, seen: index.Seen) -> None:
        """Of others' indexes, and of those that slow a walk down."""
        theirs = index.theirs(bound, seen)
        if theirs is not None and all(each.name != index.name_of(bound) for each in seen.found):
            self._tell(f"sync {bound.name}: index {theirs}, which somebody made, serves as the declared one")
        elif seen.is_renewed and any(each.is_valid for each in seen.found):
            self._tell(
                f"sync {bound.name}: most rows are encoded again with an index in place, which takes many "
                "times as long; write rebuild = true in index, or stop this worker and run "
                f"`freshvec backfill {bound.declared_name} --drop-index`"
            )

    def _tell(self, message: str) -> None:
        if message != self._told:
            self._told = message
            logger.info(message)

    def _note(self, connection: Connection, name: str, trouble: str | None) -> None:
        """Let `status` say it."""
        self._trouble = trouble
        building.keep_trouble(connection, name, trouble)
