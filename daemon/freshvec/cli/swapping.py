"""What `freshvec swap` does, step by step, and what it says."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import typer
from pydantic import ValidationError

from freshvec.cli import cost_view, plan_view, swap_view
from freshvec.cli.app import say
from freshvec.config import Settings, Sync
from freshvec.db import Connection, connect
from freshvec.encoding.loading import Models
from freshvec.encoding.rate import Rates
from freshvec.errors import FreshvecError, NotFreshError, SchemaError, UsageError
from freshvec.health import swapping
from freshvec.health import wait as waiting
from freshvec.schema import cost, editions, migrations
from freshvec.schema import swap as schema
from freshvec.schema.apply import apply
from freshvec.schema.editions import Editions
from freshvec.schema.plan import plan
from freshvec.source.bind import bind
from freshvec.source.bound import BoundSync
from freshvec.source.sample import sample as sampled
from freshvec.target import recall


@dataclass(frozen=True)
class Swap:
    """One sync's swap. Each step may be repeated, and goes on where an earlier one was cut off."""

    settings: Settings
    connection: Connection
    models: Models
    declared: Sync
    wait: float

    @classmethod
    @contextmanager
    def opened(cls, settings: Settings, name: str, wait: float) -> Iterator[Self]:
        (declared,) = settings.find(name)
        with connect(settings.database.url, "swap") as connection:
            migrations.migrate(connection)
            yield cls(settings, connection, Models(settings), declared, wait)

    @property
    def name(self) -> str:
        return self.declared.name

    def begin(self, changes: dict[str, Any], table: str | None, is_wanted: Callable[[], bool]) -> None:
        """Show what it takes, ask, and let it be filled."""
        found = editions.find(self.connection, self.declared)
        try:
            new = schema.proposed(found, changes, table)
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
            raise UsageError(f"what is to be otherwise cannot be: {'; '.join(faults)}") from error
        model = self.models.describe(new)
        view = schema.view_name(self.connection, found, self.models.describe(found.shown))
        planned = plan(self.connection, new, model, self.settings.database.worker_role)
        say("\n".join(plan_view.lines(planned, None)))
        told = cost.of_plan(self.connection, planned, Rates(self.models))
        lines = [f"cost       unknown: {told}"] if isinstance(told, str) else cost_view.lines(told)
        say("\n".join(f"  {line}" for line in lines))
        say("  meanwhile  each change of the table is noted twice, and both are kept fresh")
        if not is_wanted():
            raise typer.Exit(1)
        if new != found.other:
            schema.begin(self.connection, found, new, view)
        self._apply(new)
        schema.tell(self.connection)
        say(f"{self.name}: {new.name} is begun; a worker fills it, or `freshvec backfill {self.name}`")
        say(f"`freshvec swap {self.name}` shows how far it is.")

    def _apply(self, sync: Sync) -> BoundSync:
        model, role = self.models.describe(sync), self.settings.database.worker_role
        bound, _ = apply(self.connection, sync, model, role, self.wait)
        return bound

    def commit(self, keep_seconds: float, *, is_forced: bool) -> None:
        """Let the view show the newer edition."""
        found = editions.find(self.connection, self.declared)
        if found.other is None or found.is_newer_shown:
            if found.number > 1:
                say(f"{self.name}: {found.shown.name} is shown already")
                return
            raise self._refused("no swap is under way", f"freshvec swap {self.name} --model … begins one")
        self._show(found, found.other, keep_seconds, is_forced=is_forced)
        days = keep_seconds / 86_400
        say(
            f"{self.name}: {found.other.name} is shown; {found.shown.name} is kept fresh for {days:g} days, "
            f"or until `freshvec swap {self.name} --finish`"
        )
        note = editions.find(self.connection, self.declared).note
        if note:
            say(f"{self.name}: {note}")

    def roll_back(self, *, is_forced: bool) -> None:
        """Let the view show the older edition again."""
        found = editions.find(self.connection, self.declared)
        if found.other is None:
            raise self._refused("no others are there", f"freshvec swap {self.name} --model … makes some")
        if not found.is_newer_shown:
            say(f"{self.name}: {found.shown.name} is shown already")
            return
        self._show(found, found.other, None, is_forced=is_forced)
        say(
            f"{self.name}: {found.other.name} is shown again; {found.shown.name} is kept fresh, too, until "
            f"`freshvec swap {self.name} --commit` or --abandon"
        )

    def _show(self, found: Editions, coming: Sync, keep_seconds: float | None, *, is_forced: bool) -> None:
        bound = self._apply(coming)  # grants, above all
        self._apply(found.shown)
        seen = swapping.standing(self.connection, coming)
        for obstacle in swapping.obstacles(self.connection, bound, seen):
            if not (is_forced and obstacle.may_be_forced):
                more = " Or --force." if obstacle.may_be_forced else ""
                raise SchemaError("show", coming.name, obstacle.problem, obstacle.remedy + more)
        has_failed = seen.row is not None and seen.row["rows_failed"]
        if not has_failed and not waiting.wait_until_fresh(self.connection, coming.name, (), self.wait):
            problem = f"its changes are not fresh after {self.wait:g} s"
            raise NotFreshError("show", coming.name, problem, "See `freshvec status`; does a worker run?")
        pairs = [(each, self.models.describe(each)) for each in (coming, found.shown)]
        schema.show(self.connection, *pairs, keep_seconds=keep_seconds, patience=self.wait)

    def leaving(self, *, is_new: bool) -> str:
        """The edition to be taken away, which is not the one that is shown. Raises SchemaError."""
        found = editions.find(self.connection, self.declared)
        if found.other is None:
            if found.leaving:
                return found.leaving[0]
            raise self._refused("there is one set of vectors alone", f"freshvec swap {self.name} shows it")
        if found.is_newer_shown == is_new:
            step = "--rollback" if is_new else "--commit"
            problem = f"{found.shown.name} is what is shown"
            raise self._refused(problem, f"freshvec swap {self.name} {step} shows the other one")
        return found.other.name

    def take_away(self, name: str) -> None:
        """Let workers let go of it, and take it away."""
        schema.leave(self.connection, name)
        schema.take_away(self.connection, name, self.wait)
        say(f"{self.name}: {name} is taken away")

    def show(self, queries: Path | None, sample: int) -> None:
        """How it stands; and once both are filled, what searches find in old and new."""
        found = editions.find(self.connection, self.declared)
        seen = [swapping.standing(self.connection, sync) for sync in found.run]
        say("\n".join(swap_view.lines(found, seen)))
        if found.other is None or not all(each.is_filled for each in seen) or not (sample or queries):
            return
        ordered = (found.other, found.shown) if found.is_newer_shown else (found.shown, found.other)
        say("\n".join(swap_view.report(*ordered, self._recall(*ordered, queries, sample))))

    def _recall(self, old: Sync, new: Sync, queries: Path | None, sample: int) -> recall.Recall:
        bounds = [bind(self.connection, each, self.models.describe(each)) for each in (old, new)]
        if queries is not None:
            texts = [line.strip() for line in queries.read_text(encoding="utf-8").splitlines()]
            texts = [text for text in texts if text]
        else:
            texts = sampled(self.connection, bounds[0], sample)
        found = []
        for bound in bounds:
            encoder = self.models.encoder(bound.sync.model)
            vectors = [encoder.encode_query(text) for text in texts]
            found.append(recall.lists(self.connection, bound, vectors, recall.TOP + 1))
        return recall.compare(found[0], found[1], leave_out_first=queries is None)

    def _refused(self, problem: str, remedy: str) -> FreshvecError:
        return SchemaError("swap", f"sync {self.name!r}", problem, f"{remedy}.")
