"""The examination: every check, each by itself, so that one that fails hides no other."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg

from freshvec import config
from freshvec.config import Settings
from freshvec.db import Connection, connect, queries
from freshvec.doctor import device, files, indexes, load, roles, room, runtime, server, syncs
from freshvec.doctor.finding import Finding, fault, ok, warning
from freshvec.doctor.place import Check, Place
from freshvec.errors import FreshvecError
from freshvec.schema import editions

_SQL = queries("doctor/examine")
HERE: dict[str, Check] = {
    "versions": runtime.versions,
    "telemetry": runtime.telemetry,
    "configuration": files.configuration,
    "model files": files.models,
    "device": device.device,
    "memory": device.memory,
    "disk": room.here,
}
IN_DATABASE: dict[str, Check] = {
    "server": server.version,
    "pgvector": server.pgvector,
    "sessions": server.sessions,
    "locks": server.locks,
    "notifications": server.notifications,
    "two-phase": server.two_phase,
    "replication": server.replication,
    "WAL": server.log,
    "temporary files": server.temporary_files,
    "autovacuum": server.autovacuum,
    "speed": load.speed,
    "load": load.transactions,
    "clock": load.clock,
    "disk of the server": room.of_the_server,
    "roles": roles.roles,
    "syncs": syncs.syncs,
    "rows": syncs.rows,
    "index": indexes.indexes,
}


def examine(path: Path | None) -> Iterator[Finding]:
    """Every finding, as it is made. Raises nothing: what fails is a finding, too."""
    place, is_sound = Place(Settings(), None), True
    try:
        place = Place(config.load(path), config.file_of(path))
    except FreshvecError as error:
        is_sound = False
        yield fault("configuration", error.problem, "no command but init runs with it", error.remedy)
    for subject, check in HERE.items():
        yield from _tried(subject, check, place)
    if not is_sound:
        yield _unseen("Mend the configuration, which says where it is.")
        return
    try:
        place.database = connect(place.settings.database.url, "doctor")
    except FreshvecError as error:
        yield fault("database", error.problem, "nothing can be kept fresh without it", error.remedy)
        yield _unseen(error.remedy)
        return
    yield ok("database", f"{_named(place.database)}, and its sessions are ours alone (no pooler shares them)")
    with place.database:
        _look_at_editions(place)
        for subject, check in IN_DATABASE.items():
            yield from _tried(subject, check, place)


def _look_at_editions(place: Place) -> None:
    """From here on the syncs are those that are run: of one that is swapped there are two."""
    with suppress(FreshvecError):
        found = editions.find_all(place.connection, place.settings.sync)
        place.notes = {each.name: each.note for each in found if each.note}
        syncs = tuple(sync for each in found for sync in each.run)
        place.settings = place.settings.model_copy(update={"sync": syncs})


def _tried(subject: str, check: Check, place: Place) -> Iterator[Finding]:
    """What a check finds, and that it failed, if it did."""
    try:
        if place.database is not None:
            place.database.execute(_SQL["within"])
        yield from check(place)
    except Exception as error:  # a fault of ours, or of what is looked at, must not hide the others
        problem = error.problem if isinstance(error, FreshvecError) else f"{type(error).__name__}: {error}"
        remedy = error.remedy if isinstance(error, FreshvecError) else ""
        first = problem.strip().splitlines()[0] if problem.strip() else type(error).__name__
        yield warning(
            subject,
            f"it could not be looked at: {first}",
            "what it would have found is unknown",
            remedy or "Mend what it says, and run `freshvec doctor` again.",
        )


def _unseen(remedy: str) -> Finding:
    """That nothing was looked at in the database."""
    names = ", ".join(IN_DATABASE)
    return warning("database", f"not looked at: {names}", "they may have faults as well", remedy)


def _named(connection: Connection) -> str:
    """Which database, as whom."""
    with suppress(psycopg.Error):
        row = connection.execute(_SQL["where"]).fetchone()
        if row:
            return f"reached {row[0]} as {row[1]}"
    return "reached"
