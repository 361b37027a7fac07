"""The syncs: applied as declared, triggers on every relation, kept by a worker, and how their rows are."""

from collections.abc import Iterator
from typing import Any

from freshvec.capture import triggers
from freshvec.config import Sync
from freshvec.db import queries, quoted_name
from freshvec.doctor.device import graphics_cards
from freshvec.doctor.finding import Finding, fault, ok, warning
from freshvec.doctor.place import Place
from freshvec.errors import FreshvecError
from freshvec.health import status
from freshvec.schema import difference, migrations
from freshvec.schema.plan import Plan, plan

_SQL = queries("doctor/syncs")
_MEMORY = ("memory", "ALLOC_FAILED")  # in what a worker says that had too little of it
_MUCH_QUEUED, _OLD_SECONDS = 10_000, 300
_SLOW_LAG_MS = 5_000


def syncs(place: Place) -> Iterator[Finding]:
    """Each declared sync against what the database has of it."""
    if not place.settings.sync:
        yield warning("syncs", "none is declared", "nothing is embedded", "freshvec init proposes some")
    for name, note in place.notes.items():
        yield warning("syncs", f"{name}: {note}", "file and database differ", "Do what it says.")
    for sync in place.settings.sync:
        try:
            model = place.models.describe(sync)
            planned = plan(place.connection, sync, model, place.settings.database.worker_role)
        except FreshvecError as error:
            yield fault("syncs", f"{sync.name}: {error.problem}", "it cannot be kept", error.remedy)
            continue
        yield from _as_planned(place, sync, planned)
        yield from _hindered(place, sync.name)


def rows(place: Place) -> Iterator[Finding]:
    """What `freshvec.status` and the workers say of the rows."""
    if not migrations.is_bootstrapped(place.connection):
        return
    declared = {sync.name for sync in place.settings.sync}
    for row in status.read(place.connection):
        name = row["sync"]
        if declared and name not in declared:
            yield warning(
                "rows",
                f"{name} is applied and not declared",
                "its triggers note changes that no worker of this file reads",
                f"freshvec remove {name}, or declare it again",
            )
            continue
        found = [*_reported(place, name), *_waiting(row), *_failed(row)]
        yield from found
        if not found:
            yield ok("rows", f"{name}: {row['coverage']:.0%} of {row['rows_total'] or 0:,} rows are fresh")


def _as_planned(place: Place, sync: Sync, planned: Plan) -> Iterator[Finding]:
    name = sync.name
    missing = [] if planned.applied is None else list(_missing(place, planned))
    if planned.applied is None:
        yield fault(
            "syncs", f"{name} is not applied", "none of its changes is noted", f"freshvec apply {name}"
        )
    elif planned.is_redefined:
        changes = ", ".join(change.part for change in difference.changes(planned))
        yield warning(
            "syncs",
            f"{name} is declared otherwise than it is applied: {changes}",
            "vectors are those of the old definition",
            f"freshvec plan {name} shows what follows; then: freshvec apply {name}",
        )
    elif missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        yield fault(
            "syncs",
            f"{name}: triggers are missing or disabled: {shown}",
            "changes of those tables are not noted; a walk finds them once a day",
            f"freshvec apply {name}",
        )
    elif planned.lacking or planned.access:
        what = "grants" if not planned.lacking else "objects"
        yield fault(
            "syncs",
            f"{name}: {what} are not as they were made",
            "the worker cannot write its vectors, or who may read the table cannot search them",
            f"freshvec apply {name}",
        )
    else:
        count = len(planned.bound.relations)
        hidden = ", with row security on table and target" if planned.bound.has_row_security else ""
        tables = "its table" if count == 1 else f"all {count} tables"
        yield ok("syncs", f"{name}: applied as declared, triggers on {tables}{hidden}")


def _missing(place: Place, planned: Plan) -> Iterator[str]:
    """Triggers that are lacking or not enabled as they should be: each with its table."""
    there = {
        (trigger.relation_oid, trigger.name): trigger.enabled
        for trigger in triggers.installed(place.connection, planned.bound.name)
    }
    for trigger in triggers.wanted(planned.bound):
        if there.get((trigger.relation_oid, trigger.name)) != trigger.enabled:
            yield f"{trigger.name} on {'.'.join(trigger.relation)}"


def _hindered(place: Place, name: str) -> Iterator[Finding]:
    """What is on the queue that may refuse an entry: as an event trigger gives every new table a trigger."""
    queue = quoted_name("freshvec", f"queue_{name}")
    found = [str(what) for (what,) in place.connection.execute(_SQL["hindrances"], {"queue": queue})]
    if found:
        yield fault(
            "syncs",
            f"{name}: its queue has what was not made by freshvec: {', '.join(found)}",
            "no change is noted; each asks for a walk of the whole table, and warns the application",
            f"Take it from {queue}; keep what made it away from schema freshvec.",
        )


def _reported(place: Place, name: str) -> Iterator[Finding]:
    """What the worker said last."""
    row = place.connection.execute(_SQL["reported"], {"name": name}).fetchone()
    if row is None:
        return
    error, device, paused = row
    if error and any(word in error for word in _MEMORY):
        yield fault(
            "memory",
            f"{name}: the worker ran out of memory: {error}",
            "batches are halved, then the model is loaded again, and at last the process ends",
            "free memory (nvidia-smi, free -m), write a smaller batch_tokens, or choose a smaller model",
        )
    elif error:
        yield fault("rows", f"{name}: {error}", "the worker cannot go on with it", "Mend what it says.")
    if device == "cpu" and place.settings.daemon.device != "cpu" and graphics_cards():
        yield fault(
            "device",
            f"{name}: the GPU is not used: the worker that runs encodes on the CPU",
            "a GPU encodes ten to a hundred times as fast",
            "See its log for the reason (journalctl -u freshvec); a unit needs the drop-in gpu.conf.",
        )
    if paused:
        remedy = "See `freshvec status`; pause_at_lag_seconds decides when it does."
        yield warning("rows", f"{name}: bulk work is paused: {paused}", "a backfill does not go on", remedy)


def _waiting(row: dict[str, Any]) -> Iterator[Finding]:
    """Changes that wait, and for whom."""
    name, queued, oldest = row["sync"], row["backlog"] or 0, row["oldest_unfresh_seconds"] or 0
    if row["owner_pid"] is None and (queued or not status.is_fresh(row)):
        yield fault(
            "rows",
            f"{name}: no worker runs, and {f'{queued:,} rows wait' if queued else 'not every row is fresh'}",
            "nothing is made fresh meanwhile, and the queue grows",
            "systemctl start freshvec, or: freshvec run",
        )
    elif queued > _MUCH_QUEUED or oldest > _OLD_SECONDS:
        yield warning(
            "rows",
            f"{name}: {queued:,} rows wait, the oldest change for {oldest:.0f} s",
            "their vectors are not those of their texts yet",
            "See `freshvec status` for the rate; int8 on a CPU, or a GPU, encodes faster.",
        )
    elif (row["lag_p50_ms"] or 0) > _SLOW_LAG_MS:
        yield warning(
            "rows",
            f"{name}: half of the changes of the last day waited over {row['lag_p50_ms'] / 1000:.0f} s",
            "searches right after a write do not find it",
            "See the findings about speed, load and device.",
        )


def _failed(row: dict[str, Any]) -> Iterator[Finding]:
    if row["rows_failed"]:
        yield warning(
            "rows",
            f"{row['sync']}: the texts of {row['rows_failed']:,} rows could not be encoded",
            "they are found by no search",
            f"freshvec status lists them; freshvec retry {row['sync']} tries them again",
        )
