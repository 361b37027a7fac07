"""Adoption on the command line: vectors that are there already are looked at, shown, and taken over."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from freshvec.adoption import sample
from freshvec.adoption.origin import Origin, Trigger, find, triggers
from freshvec.adoption.rows import REFUSALS
from freshvec.adoption.sample import Proof, prove
from freshvec.adoption.takeover import Taken, take_over
from freshvec.cli.app import say
from freshvec.cli.plan_view import wrapped
from freshvec.config import Settings, Sync
from freshvec.db import Connection
from freshvec.encoding.loading import Models
from freshvec.errors import FreshvecError
from freshvec.pipeline.pressure import SECONDS_BETWEEN_LOOKS, Pressure
from freshvec.printable import in_a_line
from freshvec.schema import migrations
from freshvec.schema.apply import apply, owned
from freshvec.schema.cost import Cost
from freshvec.schema.plan import plan
from freshvec.source.bound import BoundSync

_SECONDS_BETWEEN_LINES = 10.0
_ENCODE_ALL = "Without --adopt every row is encoded."


@dataclass(frozen=True)
class Found:
    """Vectors of a sync's rows that something else made, and what a sample of them says."""

    bound: BoundSync
    origin: Origin
    proof: Proof
    triggers: list[Trigger]

    def check(self) -> None:
        """Raises FreshvecError where they are not of the sync's model and text."""
        proof, model = self.proof, self.bound.model.name
        if proof.is_empty and self.bound.id:  # as it was applied before: nothing is left
            return
        if not proof.compared:
            problem = f"no row has a vector there that could be compared{_reasons(proof)}"
            raise FreshvecError("adopt the vectors of", self.origin.where, problem, _ENCODE_ALL)
        if not proof.is_of_the_model:
            problem = (
                f"of {proof.compared} random rows {proof.agreeing} have the vector that {model} gives their "
                f"text now (median cosine {proof.median_cosine:.3f}), and {sample.LEAST_SHARE:.0%} have to: "
                "they are of another model or precision, of other columns, or were not kept"
            )
            remedy = f"Declare the model and columns that they were made of. {_ENCODE_ALL}"
            raise FreshvecError("adopt the vectors of", self.origin.where, problem, remedy)

    def is_taken_whole(self, trust: bool) -> bool:
        """Whether they count as those of their rows' texts, and none is encoded again."""
        return self.proof.is_proven or trust

    def cost(self, cost: Cost | str | None, *, trust: bool) -> Cost | str | None:
        """The cost, where only what is not taken over is to be encoded."""
        if not isinstance(cost, Cost) or not self.is_taken_whole(trust):
            return cost
        return replace(cost, again=round(cost.texts * (1 - self.proof.usable)))


def look(connection: Connection, models: Models, bound: BoundSync, where: str) -> Found:
    """Find the vectors, and compare a sample of them. Raises SchemaError, DatabaseError, ModelError."""
    origin = find(connection, bound, where)
    name = bound.sync.model
    dispatcher = models.dispatcher(name, models.encoder(name))
    try:
        proof = prove(connection, bound, origin, dispatcher)
    finally:
        dispatcher.stop(timeout=2.0)
    return Found(bound, origin, proof, triggers(connection, bound, origin))


def apply_adopting(
    settings: Settings,
    models: Models,
    connection: Connection,
    declared: Sync,
    where: str,
    *,
    trust: bool,
    patience: float,
) -> BoundSync:
    """Apply a sync, and take over its vectors. Where they cannot be, nothing is applied."""
    role, model = settings.database.worker_role, models.describe(declared)
    consequence = "would encode its rows meanwhile"
    with owned(connection, declared.name, "adopt vectors for", consequence, "then adopt them"):
        found = look(connection, models, plan(connection, declared, model, role).bound, where)
        found.check()
        for line in lines(found, trust=trust):
            say(line)
        for name in migrations.migrate(connection):
            say(f"migrated: {name}")
        bound, _ = apply(connection, declared, model, role, patience)
        taken = take_over(
            connection,
            bound,
            found.origin,
            found.proof,
            with_hashes=found.is_taken_whole(trust),
            between=_Between(connection, settings.daemon.pause_at_lag_seconds, bound.name),
        )
    for line in summary(found, taken, trust=trust):
        say(line)
    return bound


class _Between:
    """Between two transactions: says now and then how far it is, and waits while the database has enough to
    do."""

    def __init__(self, connection: Connection, most_seconds: float | None, name: str) -> None:
        self._connection, self._name = connection, name
        self._pressure = Pressure(most_seconds)
        self._said = self._looked = time.monotonic()

    def __call__(self, taken: Taken) -> None:
        now = time.monotonic()
        if now - self._said > _SECONDS_BETWEEN_LINES:
            self._said = now
            say(f"{self._name}: {taken.vectors:,} vectors taken over of {taken.rows:,} rows so far")
        if self._pressure.is_asked_for and now - self._looked > SECONDS_BETWEEN_LOOKS:
            self._pressure.look(self._connection)
            while self._pressure.is_felt:
                time.sleep(SECONDS_BETWEEN_LOOKS)
                self._pressure.look(self._connection)
            self._looked = time.monotonic()


def lines(found: Found, *, trust: bool) -> Iterator[str]:
    """What is found, what a sample of it says, and what follows from that."""
    proof, origin = found.proof, found.origin
    yield f"{found.bound.name}: vectors of {origin.where} ({origin.kind.replace('_', '')})"
    if proof.is_empty:
        yield from wrapped("sample     no row has a vector there that is not taken over, or encoded, already")
        return
    text = f"{proof.agreeing} of {proof.compared} random rows have the vector that their text has now"
    yield from wrapped(f"sample     {text}{_reasons(proof)}")
    yield from wrapped(f"adopts     {_consequence(found, trust=trust)}")
    for trigger in found.triggers:
        keeps = f"trigger {trigger.name} goes on keeping the old vectors; when you need them no more"
        yield from wrapped(f"then       {keeps}: {trigger.command}")


def _consequence(found: Found, *, trust: bool) -> str:
    """What is taken over, and how sure that is."""
    proof = found.proof
    if not proof.is_of_the_model:
        return "nothing: they are not of this model and text"
    share = f"about {proof.usable:.0%} of all rows, which are not encoded again"
    wrong = len(proof.disagreeing) / proof.compared
    if found.origin.text is not None and proof.is_proven:
        return f"{share}; the text that each vector was made of is kept beside it, and is the row's"
    if proof.is_whole and proof.is_proven:
        return f"{share}; each of them was compared"
    if proof.is_proven:
        return f"{share}; with 95% confidence at most {proof.most_stale:.1%} of them are of an older text"
    if trust:
        return f"{share}, though about {wrong:.1%} of them are of an older text"
    return (
        f"for the time being: {wrong:.1%} of the sample are of an older text, and only encoding tells which "
        "of the others are. So they are searched as they are until their rows have been encoded again. "
        "--trust takes them as they are for good"
    )


def summary(found: Found, taken: Taken, *, trust: bool) -> Iterator[str]:
    """What has been taken over, and what is left to the worker."""
    name, proof = found.bound.name, found.proof
    again = "" if found.is_taken_whole(trust) else ", to be searched until their rows are encoded"
    yield (
        f"{name}: {taken.vectors:,} vectors taken over{again}; {proof.compared} texts were encoded to compare"
    )
    if proof.disagreeing:
        yield f"{name}: {len(proof.disagreeing)} rows of the sample that disagree are queued"
    for reason, count in sorted(taken.refused.items()):
        keys = ", ".join(in_a_line("/".join(key)) for key in taken.examples[reason])
        yield f"{name}: {count:,} rows {REFUSALS[reason]} are left to be encoded, as {keys}"


def as_json(found: Found, *, trust: bool) -> dict[str, Any]:
    """What is found, for `plan --json`."""
    proof = found.proof
    return {
        "from": found.origin.where,
        "type": found.origin.kind.replace("_", ""),
        "compared": proof.compared,
        "agreeing": proof.agreeing,
        "median_cosine": proof.median_cosine,
        "refused": dict(proof.refused),
        "is_of_the_model": proof.is_of_the_model,
        "is_encoded_again": not found.is_taken_whole(trust),
        "share_adopted": proof.usable if proof.is_of_the_model else 0.0,
        "triggers": {trigger.name: trigger.command for trigger in found.triggers},
    }


def _reasons(proof: Proof) -> str:
    """Why rows that were read were not compared."""
    parts = [f"{count} {REFUSALS[reason]}" for reason, count in sorted(proof.refused.items())]
    return f"; left out: {', '.join(parts)}" if parts else ""
