"""The target table: one row per source row that has a text, its embedding and what that was made from; and
its view."""

from dataclasses import dataclass

from psycopg import sql

from freshvec.db import Connection, queries, quoted
from freshvec.errors import SchemaError
from freshvec.source import layout
from freshvec.source.bound import BoundSync, view_of

_SQL = queries("target/table")
_RENAME = 'Name another one: target = { table = "…" }.'


@dataclass(frozen=True)
class Existing:
    """A relation that has the target's name."""

    oid: int
    kept_as: str | None
    vector_type: str | None
    is_ours: bool
    has_row_security: bool


def statements(bound: BoundSync) -> list[sql.Composed]:
    """The DDL of the target table, its view, and the functions that look at a row of it."""
    names = (
        "create",
        "create_function",
        "create_view",
        "create_visible",
        "create_answered",
        "create_guard",
        "guard",
    )
    parts = {"source_text": sql.Literal(_text(*bound.source_name)), "kept_type": _kept_type(bound)}
    return [bound.compose(_SQL[name], **parts) for name in names]


def _kept_type(bound: BoundSync) -> sql.Composable:
    """The type of what the target keeps of a vector."""
    return bound.vector_type if bound.sync.target.column is None else sql.SQL("bytea")


def mending(connection: Connection, bound: BoundSync) -> list[sql.Composed]:
    """The DDL that lets changes by others be noticed again, where it is lacking."""
    given = {"target": _text(*bound.target_name), "name": bound.name}
    row = connection.execute(_SQL["is_guarded"], given).fetchone()
    return [] if row and row[0] else [bound.compose(_SQL["guard"])]


def describe(connection: Connection, name: tuple[str, str]) -> Existing | None:
    """What a relation of that name is, None where there is none."""
    row = connection.execute(_SQL["describe"], {"schema": name[0], "table": name[1]}).fetchone()
    return None if row is None else Existing(*row)


def following(
    connection: Connection, bound: BoundSync, existing: Existing, queue_oid: int | None
) -> list[sql.Composed]:
    """The DDL by which an existing target and queue follow the key of the source; for another key they begin
    anew."""
    declared = [(c.name, c.type, list(c.collation) if c.collation else None) for c in bound.key]
    has = [tuple(row) for row in connection.execute(_SQL["columns"], {"oid": existing.oid})]
    if has == declared:
        return []
    drop = [bound.compose(_SQL["drop_view"])]
    if queue_oid is None or len(has) != len(declared):
        return [*drop, bound.compose(_SQL["drop"])]
    ddl = []
    for place, (old, column) in enumerate(zip(has, bound.key, strict=True), 1):
        if old[0] != column.name:
            ddl.append(bound.compose(_SQL["rename"], column=quoted(old[0]), name=quoted(column.name)))
        if old[1:] != (column.type, list(column.collation) if column.collation else None):
            ddl.append(bound.compose(_SQL["retype"], column=quoted(column.name), type=column.declared))
            names = {"target": quoted("freshvec", f"queue_{bound.name}"), "type": column.declared}
            ddl.append(sql.SQL(_SQL["retype"]).format(column=quoted(f"k{place}"), **names))
    return drop + ddl


def row_security(bound: BoundSync, existing: Existing | None) -> list[sql.Composed]:
    """The DDL that hides the embeddings of rows that the source hides."""
    if bound.has_row_security:
        return [bound.compose(_SQL["enable_row_security"])]
    if existing is not None and existing.has_row_security:
        return [bound.compose(_SQL["disable_row_security"])]
    return []


@dataclass(frozen=True)
class Access:
    """Who is to be given the target, and who is to lose it: roles, None for everybody."""

    granted: list[str | None]
    ddl: list[sql.Composed]


def access(
    connection: Connection,
    bound: BoundSync,
    granted: list[str],
    worker_role: str | None,
    *,
    is_renewed: bool = False,
) -> Access:
    """Who may read the source may read its embeddings, and only as long; the worker's role may do its work.

    `granted` are the roles that were given it before, "" for everybody. `is_renewed`: target, view
    and functions are made first, and what was granted on old ones may go with them.
    """
    names = {"oid": bound.source_oid, "target": _text(*bound.target_name), "view": _text(*bound.view_name)}
    readers: dict[str | None, bool] = dict(connection.execute(_SQL["readers"], names).fetchall())
    ddl = [
        bound.compose(_SQL["grant"], role=_role(role))
        for role in sorted(readers, key=str)
        if is_renewed or not readers[role]
    ]
    known = {role for (role,) in connection.execute(_SQL["known_roles"], {"roles": granted})} | {""}
    lost = [role or None for role in granted if role in known and (role or None) not in readers]
    ddl += [
        bound.compose(_SQL["revoke"], role=_role(role))
        for role in lost
        if role is None or role != worker_role
    ]
    if worker_role and (is_renewed or not _has_rights(connection, bound, worker_role)):
        ddl.append(bound.compose(_SQL["grant_worker"], role=quoted(worker_role)))
        if bound.sync.target.column is not None:
            ddl.append(bound.compose(_SQL["grant_column"], role=quoted(worker_role)))
    return Access(list(readers), ddl)


def _has_rights(connection: Connection, bound: BoundSync, role: str) -> bool:
    tables = {
        "source": _text(*bound.source_name),
        "target": _text(*bound.target_name),
        "queue": _text("freshvec", f"queue_{bound.name}"),
    }
    if any(
        describe(connection, name) is None
        for name in (bound.target_name, ("freshvec", f"queue_{bound.name}"))
    ):
        return False
    row = connection.execute(_SQL["worker_rights"], {"role": role, **tables}).fetchone()
    column = bound.sync.target.column
    if not (row and row[0]) or bound.lacks_column or column is None:
        return bool(row and row[0]) and not bound.lacks_column
    given = {"role": role, "source": tables["source"], "column": column}
    row = connection.execute(_SQL["may_write_column"], given).fetchone()
    return bool(row and row[0])


def _role(role: str | None) -> sql.Composable:
    return quoted(role) if role else sql.SQL("PUBLIC")


def _text(*names: str) -> str:
    return sql.Identifier(*names).as_string()


def removal(sync_name: str, target: tuple[str, str]) -> sql.Composed:
    """The DDL that takes view, target and queue away; it needs neither the source nor the model."""
    return sql.SQL(_SQL["drop"]).format(
        view=quoted(*view_of(target)),
        target=quoted(*target),
        queue=quoted("freshvec", f"queue_{sync_name}"),
        embedded=quoted("freshvec", f"embedded_{sync_name}"),
        visible=quoted("freshvec", f"visible_{sync_name}"),
        answered=quoted("freshvec", f"answered_{sync_name}"),
        guard=quoted("freshvec", f"guard_{sync_name}"),
    )


def check_existing(connection: Connection, bound: BoundSync) -> Existing | None:
    """What has the target's name. Raises SchemaError when it, or what has its view's, is nothing this sync
    can use."""
    schema, table = bound.target_name
    existing = describe(connection, bound.target_name)
    if existing is None:
        view = describe(connection, bound.view_name)
        if view is not None and not view.is_ours:
            problem = "a table or view of that name exists and was not made for this sync"
            raise SchemaError(
                f"use the view of sync {bound.name!r},", ".".join(bound.view_name), problem, _RENAME
            )
        return None
    subject = f"{schema}.{table}"
    if not existing.is_ours or existing.vector_type is None:
        problem = "a table of that name exists and was not made by freshvec"
        raise SchemaError(f"use the target of sync {bound.name!r},", subject, problem, _RENAME)
    wanted = _kept_type(bound).as_string(None).replace('"', "").split(".")[-1]
    has = existing.vector_type.split(".")[-1]
    if existing.kept_as != layout.kept_as(bound.sync):
        raise SchemaError(
            f"use the target of sync {bound.name!r},",
            subject,
            "it was made for another layout: one keeps vectors, another what is known of those in the source",
            f"Name another target, or `freshvec remove {bound.name}` first.",
        )
    if has != wanted:
        raise SchemaError(
            f"use the target of sync {bound.name!r},",
            subject,
            f"its embeddings are {has}, but model {bound.model.name} with type {bound.sync.target.type} "
            f"gives {wanted}",
            f"Name another target, or `freshvec remove {bound.name}` first.",
        )
    return existing
