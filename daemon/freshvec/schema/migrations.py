"""Applies `migrations/NNNN_*.sql` in order, once, each with its checksum noted."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from psycopg import sql

from freshvec import data
from freshvec.db import LOCK_CLASS, MIGRATE_LOCK, Connection, queries, translated
from freshvec.errors import LockedError, SchemaError
from freshvec.source.default_rights import taken_back
from freshvec.source.locks import patiently

_SQL = queries("schema/migrations")
NO_TRANSACTION = "-- freshvec: no-transaction"
_SECONDS = 60.0  # to try a migration while others use what it changes


@contextmanager
def exclusive(connection: Connection, *, waits: bool = True) -> Iterator[None]:
    """One process at a time changes the schema; the others wait their turn, or raise LockedError at once."""
    lock: dict[str, Any] = {"class": LOCK_CLASS, "object": MIGRATE_LOCK}
    _await(connection, lock) if waits else _try(connection, lock)
    try:
        yield
    finally:
        if not connection.broken:
            connection.execute(_SQL["unlock"], lock)


def _await(connection: Connection, lock: dict[str, Any]) -> None:
    connection.execute(_SQL["lock_patiently"])
    try:
        connection.execute(_SQL["lock"], lock)
    finally:
        if not connection.broken:
            connection.execute(_SQL["lock_briefly"])


def _try(connection: Connection, lock: dict[str, Any]) -> None:
    (is_locked,) = connection.execute(_SQL["try_lock"], lock).fetchone() or (False,)
    if not is_locked:
        pid, application = connection.execute(_SQL["holder"], lock).fetchone() or ("unknown", "unknown")
        problem = f"backend {pid} ({application}) changes it"
        raise LockedError("the freshvec schema", problem, "Wait until that has ended, or end it.")


def is_bootstrapped(connection: Connection) -> bool:
    """Whether the freshvec schema has been made."""
    with translated("look into", "schema freshvec"):
        row = connection.execute(_SQL["exists"]).fetchone()
    return bool(row and row[0])


def pending(connection: Connection, folder: Path | None = None) -> list[Path]:
    """Migrations not yet applied.

    Raises SchemaError when an applied one is missing or has changed, or nothing says which are applied.
    """
    folder = folder or data.folder("migrations")
    files = {path.name: path for path in sorted(folder.glob("[0-9][0-9][0-9][0-9]_*.sql"))}
    applied: dict[str, str] = {}
    if is_bootstrapped(connection):
        with translated("look into", "schema freshvec"):
            applied = dict(connection.execute(_SQL["applied"]).fetchall())
            if not applied and connection.execute(_SQL["lacks_rows"]).fetchone() == (True,):
                raise SchemaError(
                    "trust",
                    "schema freshvec",
                    "its tables were copied without their rows, as by pg_dump --schema-only",
                    "DROP SCHEMA freshvec CASCADE; and begin again: no table of yours is in it.",
                )
    for name, checksum in applied.items():
        if name not in files:
            raise SchemaError(
                "trust",
                f"migration {name}",
                "the database has it applied, but this freshvec does not have the file",
                "A newer freshvec made this database: upgrade this one.",
            )
        if checksum_of(files[name]) != checksum:
            raise SchemaError(
                "trust",
                f"migration {name}",
                "the file has changed since it was applied",
                "Restore the file as it was released; a change of the schema is a new migration.",
            )
    return [path for name, path in files.items() if name not in applied]


def migrate(connection: Connection, folder: Path | None = None) -> list[str]:
    """Apply what is pending; returns the names. `connection` holds an advisory lock meanwhile."""
    if not pending(connection, folder):
        return []  # without waiting for who may be applying
    with translated("migrate", "the freshvec schema"), exclusive(connection):
        waiting = pending(connection, folder)
        if waiting:
            connection.execute(_SQL["bootstrap"])
        for path in waiting:
            _apply(connection, path)
    return [path.name for path in waiting]


def _apply(connection: Connection, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    with translated("apply", f"migration {path.name}"):
        if text.startswith(NO_TRANSACTION):
            # Such a file must bear being run again: a crash may come between its end and the note.
            for statement in re.split(r";\s*$", text, flags=re.MULTILINE):
                if re.sub(r"--.*", "", statement).strip():
                    connection.execute(sql.SQL(cast(Any, statement)))
            connection.execute(_SQL["note"], {"name": path.name, "sha256": checksum_of(path)})
        else:
            patiently(connection, lambda: _apply_whole(connection, path, text), _SECONDS)


def _apply_whole(connection: Connection, path: Path, text: str) -> None:
    """All of it or nothing. Who reads the status holds some of its objects and may want others, as this does:
    it gives way before Postgres sees a deadlock, and ends one of the two.
    """
    with translated("apply", f"migration {path.name}"), connection.transaction():
        connection.execute(_SQL["give_way"])
        (known,) = connection.execute(_SQL["relations"]).fetchone() or ([],)
        connection.execute(sql.SQL(cast(Any, text)))
        connection.execute(taken_back(sql.SQL(_SQL["others"]).format(known=sql.Literal(known))))
        connection.execute(_SQL["note"], {"name": path.name, "sha256": checksum_of(path)})


def checksum_of(path: Path) -> str:
    """What is noted of an applied migration, to see whether it has changed."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
