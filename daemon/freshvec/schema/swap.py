"""A swap: another set of a sync's vectors is begun, shown by its view, and one of the two taken away."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from psycopg import sql

from freshvec.config import Sync
from freshvec.db import WRITE_LOCK_CLASS, Connection, queries, quoted, quoted_name, translated, verbatim
from freshvec.errors import SchemaError
from freshvec.records import Model
from freshvec.schema import editions, migrations
from freshvec.schema.apply import PATIENCE_SECONDS, forget, remove
from freshvec.schema.editions import Editions, meaning
from freshvec.schema.objects import hash_of, shape_of
from freshvec.schema.plan import plan
from freshvec.source.bound import BoundSync
from freshvec.source.edition import Edition, view_of
from freshvec.source.locks import attempt, patiently, take, wait_at_most
from freshvec.storage import split_name
from freshvec.target import table

_SQL = queries("schema/swap")
_LONGEST_NAME = 63  # of Postgres, in bytes
_OWN_SECONDS = 0.25  # to wait for a writing transaction of ours


def proposed(found: Editions, changes: dict[str, Any], target: str | None = None) -> Sync:
    """The sync as its next edition: what is shown, or what the file asks for, with these changes.

    `target` is its table; without one the name of the table there is gets a number. What is under way with
    these very changes goes on. Raises SchemaError where another is.
    """
    going = found.other
    if going is not None and not found.is_newer_shown and _changed(found, changes) == meaning(going):
        return going
    if found.other is not None or found.leaving:
        other = found.other.name if found.other else found.leaving[0]
        remedy = f"See `freshvec swap {found.name}`; --commit, --abandon or --finish ends it."
        problem = f"edition {other} stands beside the one that is shown"
        raise SchemaError("swap", f"sync {found.name!r}", problem, remedy)
    number = found.highest + 1
    schema, name = found.declared.target_name
    place = editions.table_text(schema, f"{name}_{number}") if target is None else target
    if len(split_name(place)[1].encode()) > _LONGEST_NAME:
        problem, remedy = f"the table's name {place} is too long for Postgres", "Give a shorter one: --table."
        raise SchemaError("swap", f"sync {found.name!r}", problem, remedy)
    declared = _changed(found, changes)
    if declared == meaning(found.shown):
        problem = "its vectors are of that model, text and type already"
        raise SchemaError("swap", f"sync {found.name!r}", problem, "Say what is to be otherwise: --model, …")
    return editions.of(found.declared, f"{found.name}.{number}", declared, place)


def _changed(found: Editions, changes: dict[str, Any]) -> dict[str, Any]:
    """What the next edition is made of."""
    declared = meaning(found.declared if found.is_refused or not changes else found.shown)
    if {"columns", "expression"} & changes.keys():
        declared |= {"columns": None, "expression": None}
    target = declared["target"]
    if changes.get("model", declared["model"]) != declared["model"]:
        target = {"type": target["type"]}  # it may be cut otherwise
    target |= {"type": changes["type"]} if "type" in changes else {}
    return declared | {name: value for name, value in changes.items() if name != "type"} | {"target": target}


def begin(connection: Connection, found: Editions, sync: Sync, view: tuple[str, str]) -> None:
    """Note the next edition, which is then to be applied. Workers fill it from their next sweep on."""
    file, name = json.dumps(meaning(found.declared)), found.name
    given = {"sync": name, "file": file, "view": list(view)}
    first = {"name": name, "number": 1, "declared": json.dumps(meaning(found.shown)), "target": None}
    number = int(sync.name.rpartition(".")[2])
    new = {"name": sync.name, "number": number, "declared": json.dumps(meaning(sync))}
    with translated("swap", f"sync {name!r}"), connection.transaction():
        if found.shown.name == name:
            connection.execute(_SQL["begin"], given | first | {"is_shown": True})
        made = connection.execute(
            _SQL["begin"], given | new | {"target": sync.target.table, "is_shown": False}
        )
        if made.rowcount == 0:
            problem = "another swap of it has begun meanwhile"
            raise SchemaError("swap", f"sync {name!r}", problem, f"See `freshvec swap {name}`.")


def view_name(connection: Connection, found: Editions, model: Model) -> tuple[str, str]:
    """The view of a sync that is applied. Raises SchemaError where it is not."""
    planned = plan(connection, found.shown, model)
    if planned.applied is None:
        problem, remedy = "it was never applied", f"Run `freshvec apply {found.name}`, or a worker."
        raise SchemaError("swap", f"sync {found.name!r}", problem, remedy)
    bound = planned.bound
    return bound.edition.view if bound.edition else view_of(bound.target_name)


def show(
    connection: Connection,
    coming: tuple[Sync, Model],
    going: tuple[Sync, Model],
    *,
    keep_seconds: float | None,
    patience: float = PATIENCE_SECONDS,
) -> None:
    """Let the view show one edition instead of the other, in one transaction.

    The other may leave after `keep_seconds`, with None never by itself. Whoever searches waits for nothing,
    unless the type of the vectors differs, since then the view has to be dropped and made again. Raises
    SchemaError where that cannot be, LockedError, DatabaseError.
    """

    def act() -> None:
        with migrations.exclusive(connection):
            new, old = (_planned(connection, *each) for each in (coming, going))
            _show(connection, new, old, keep_seconds)

    with translated("swap", f"sync {coming[0].name!r}"):
        patiently(connection, act, patience)
        tell(connection)


def _planned(connection: Connection, sync: Sync, model: Model) -> BoundSync:
    planned = plan(connection, sync, model)
    if not planned.is_applied:
        problem = "its objects are not as they should be, or its table has changed"
        remedy = f"Run `freshvec apply {sync.name.partition('.')[0]}`, or let a worker do it; then try again."
        # A worker that lives mends it in a moment, and may be about to.
        raise SchemaError("swap", f"sync {sync.name!r}", problem, remedy, retryable=True)
    return planned.bound


def _show(connection: Connection, new: BoundSync, old: BoundSync, keep_seconds: float | None) -> None:
    view = new.view_name
    text = quoted_name(*view)
    with attempt(connection, [view], "ACCESS EXCLUSIVE"):
        wait_at_most(connection, _OWN_SECONDS)
        names = sorted((new.name, old.name))
        connection.execute(_SQL["lock"], {"class": WRITE_LOCK_CLASS, "names": names})
        row = connection.execute(_SQL["type"], {"view": text}).fetchone()
        has_passages = [each.sync.chunk is not None for each in (new, old)]
        is_anew = row is None or row[0] != _type(new) or has_passages[0] != has_passages[1]
        grants = _leave_view(connection, view, text) if is_anew else []
        shown, hidden = _as(new, is_shown=True), _as(old, is_shown=False)
        for statement in table.showing_instead(shown, is_anew=is_anew):
            connection.execute(statement, ())
        for grant in grants:
            connection.execute(grant, ())
        connection.execute(_SQL["hide"], {"other": old.name})
        given = {"name": new.name, "other": old.name, "keep_seconds": keep_seconds}
        connection.execute(_SQL["show"], given)
        for bound in (shown, hidden):
            shape = hash_of(shape_of(connection, bound))
            noted = {"name": bound.name, "shape": shape, "view": text if bound.is_shown else None}
            connection.execute(_SQL["shape"], noted)


def _as(bound: BoundSync, *, is_shown: bool) -> BoundSync:
    """The edition as it is once the view shows it, or shows it no more."""
    assert bound.edition is not None
    return replace(bound, edition=Edition(bound.edition.sync, bound.edition.view, is_shown))


def _type(bound: BoundSync) -> str:
    """The type of its vectors, as Postgres prints it for our sessions."""
    kind = bound.sync.target.type
    return kind if kind == "real[]" else quoted_name(bound.vector_schema, kind).replace('"', "")


def _leave_view(connection: Connection, view: tuple[str, str], text: str) -> Sequence[sql.Composed]:
    """Lock the view that is to be made anew; the grants that it then needs again."""
    take(connection, [view], "ACCESS EXCLUSIVE")
    row = connection.execute(_SQL["upon"], {"view": text}).fetchone()
    if row is not None:
        problem = f"its columns are of other types, or others, and view {row[0]} is made upon it"
        remedy = "Drop that view, and make it again afterwards."
        raise SchemaError("change the view", ".".join(view), problem, remedy)
    return [
        sql.SQL(_SQL["grant"] + (" WITH GRANT OPTION" if is_grantable else "")).format(
            privilege=verbatim(privilege),
            view=quoted(*view),
            role=quoted(role) if role else sql.SQL("PUBLIC"),
        )
        for role, privilege, is_grantable in connection.execute(_SQL["readers"], {"view": text}).fetchall()
    ]


def leave(connection: Connection, name: str) -> None:
    """Let the workers keep an edition no more. It is not the one that is shown."""
    with translated("swap", f"sync {name!r}"):
        connection.execute(_SQL["leave"], {"name": name})
    tell(connection)


def take_away(connection: Connection, name: str, patience: float = PATIENCE_SECONDS) -> None:
    """Take away what an edition has that is kept no more, once no worker owns it any more.

    Raises SchemaError where it has come to be kept again, as by a commit or a rollback; NotOwnedError,
    LockedError after so many seconds, and DatabaseError.
    """

    def act() -> None:
        with migrations.exclusive(connection, waits=False):  # nobody lets the view show another meanwhile
            row = connection.execute(_SQL["is_kept"], {"name": name}).fetchone()
            if row and row[0]:
                problem, remedy = "it is to be kept", f"See `freshvec swap {name.partition('.')[0]}`."
                raise SchemaError("take away", name, problem, remedy)
            if row and not remove(connection, name, 0.0):
                forget(connection, name)

    with translated("take away", name):
        patiently(connection, act, patience)


def tell(connection: Connection) -> None:
    """Let the workers look at once at what is to be run."""
    with translated("tell", "the workers"):
        connection.execute(_SQL["tell"])
