"""Binding: a sync applied to its table as far as this worker's rights go."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from loguru import logger

from freshvec.config import Sync
from freshvec.db import Connection, is_denied
from freshvec.errors import DatabaseError, LockedError, SchemaError
from freshvec.schema.apply import carry_out, make_column
from freshvec.schema.plan import Plan
from freshvec.source.bound import BoundSync
from freshvec.worker import ownership


@dataclass(frozen=True)
class Binding:
    """A bound sync, and what this worker may not mend about it: said in words, and as `undone` has it.

    `misses_changes`: triggers are among that.
    """

    bound: BoundSync
    trouble: str | None = None
    undone: tuple[bool, tuple[str, ...]] = (True, ())
    misses_changes: bool = False


def bind(connection: Connection, sync: Sync, planned: Plan, plan_again: Callable[[], Plan]) -> Binding:
    """Apply what is planned; what the worker's rights do not allow is said in status.

    Raises SchemaError where nothing can be kept without it, and DatabaseError.
    """
    if planned.is_applied and not planned.access and not planned.difference.access:
        ownership.keep_trouble(connection, sync.name, None)
        return Binding(planned.bound)
    before = undone(connection, planned)  # rights that are given amid this are seen at the next look
    try:
        if planned.column:
            make_column(connection, planned)
            planned = plan_again()
        bound = carry_out(connection, planned)
    except DatabaseError as error:
        if not is_denied(error):
            raise
        if undone(connection, plan_again()) != before:  # who has the rights was at it meanwhile
            raise
        return _without_ddl(connection, sync, planned, error, before)
    if planned.lacking:
        logger.info("sync {}: applied to {}", sync.name, sync.table)
    elif planned.difference.is_binding:
        logger.info("sync {}: {} has changed; bound again", sync.name, sync.table)
    return Binding(bound)


def _without_ddl(
    connection: Connection,
    sync: Sync,
    planned: Plan,
    error: DatabaseError,
    before: tuple[bool, tuple[str, ...]],
) -> Binding:
    remedy = f"Run `freshvec apply {planned.bound.declared_name}` as the owner of {sync.table}"
    problem = f"this worker may not mend it: {error.problem}"
    if planned.applied is None or planned.needs_objects:
        raise SchemaError("keep", f"sync {sync.name!r}", problem, f"{remedy}.") from error
    trouble = f"{problem}. {remedy}; until then changes are found by walking the table"
    logger.warning("sync {}: {}", sync.name, trouble)
    bound = carry_out(connection, planned.without_ddl(), trouble=trouble)
    return Binding(bound, trouble, before, bool(planned.lacking))


def undone(connection: Connection, planned: Plan) -> tuple[bool, tuple[str, ...]]:
    """Whether this worker has the rights of the table's owner, and what is still to be made or granted."""
    may_mend = ownership.has_owners_rights(connection, planned.bound.source_oid)
    return may_mend, (*planned.lacking, *planned.access)


def redefined(sync: Sync) -> SchemaError:
    """Why a worker gives way that would apply an older declaration over a newer one."""
    return SchemaError(
        "keep",
        f"sync {sync.name!r}",
        "another definition of it was applied since this worker read its file",
        "Make the file say the same, then reload the worker (systemctl reload freshvec, or SIGHUP).",
    )


def is_mended(connection: Connection, binding: Binding, plan_again: Callable[[], Plan]) -> bool:
    """Whether somebody has done some of what this worker may not, or has given it the right."""
    with suppress(LockedError):
        if binding.trouble is not None:
            return undone(connection, plan_again()) != binding.undone
    return False
