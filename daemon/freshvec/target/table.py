"""The target table: one row per source row that has a text, its embedding and what that was made from; and
its view."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import LiteralString

from psycopg import sql

from freshvec.db import Connection, queries, quoted, quoted_name, verbatim
from freshvec.errors import SchemaError
from freshvec.source import layout
from freshvec.source.bound import BoundSync
from freshvec.source.default_rights import taken_back
from freshvec.target import index, rekey, trust

_SQL = queries("target/table")
_CHUNKS = queries("target/chunks")  # in the place of those of the same name, where texts are cut
_FUNCTIONS = ("create_visible", "create_settled", "create_answered", "create_guard", "guard")
_LAYOUTS = {
    "embedding": "in the target",
    "vector_hash": "in a column of the source",
    "passages": "of passages",
}
_ANOTHER = 'target = { table = "…" }.'
_RENAME = f"Name another one: {_ANOTHER}"


@dataclass(frozen=True)
class Existing:
    """A relation that has the target's name."""

    oid: int
    kept_as: str | None
    kept_type: str | None
    is_ours: bool
    has_row_security: bool


def statements(bound: BoundSync) -> list[sql.Composed]:
    """The DDL of the target table, of the view where it shows this target, and of the functions that look at
    a row of it."""
    texts = {
        "source_text": sql.Literal(_text(*bound.source_name)),
        "target_text": sql.Literal(_text(*bound.target_name)),
        "vectors_text": sql.Literal(_text(*bound.vectors_name)),
    }
    made = bound.compose(_template(bound, "create"), kept_type=_kept_type(bound))
    others = [bound.compose(_template(bound, name), **texts) for name in _FUNCTIONS]
    return [made, *(showing(bound) if bound.is_shown else []), *others]


def _template(bound: BoundSync, name: str) -> LiteralString:
    chunks = {} if bound.sync.chunk is None else _CHUNKS
    return chunks.get(name, _SQL[name])


def showing(bound: BoundSync) -> list[sql.Composed]:
    """The DDL of the view that shows this target, and of its function."""
    schema = bound.vector_schema or "public"
    parts = {
        "plain_type": quoted(schema, bound.sync.target.type),
        "schema": quoted(schema),
        "operator": verbatim(index.search_operator(bound)),
    }
    return [bound.compose(_template(bound, name), **parts) for name in ("create_function", "create_view")]


def showing_instead(bound: BoundSync, *, is_anew: bool) -> list[sql.Composed]:
    """The DDL by which a view comes to show this target instead of another one. Its function alone is
    replaced, which locks nothing that a search needs; `is_anew`: the view is dropped first, as it must be
    where its columns are others."""
    if is_anew:
        return [bound.compose(_SQL["drop_view"]), *showing(bound)]
    return [bound.compose(_template(bound, "create_function"))]


def _kept_type(bound: BoundSync) -> sql.Composable:
    """The type of what the target keeps of a vector."""
    return bound.vector_type if bound.sync.target.column is None else sql.SQL("bytea")


def mending(connection: Connection, bound: BoundSync) -> list[sql.Composed]:
    """The DDL that lets changes by others be noticed again, where it is lacking."""
    given = {"tables": _texts(bound.tables), "name": bound.name}
    row = connection.execute(_SQL["is_guarded"], given).fetchone()
    return [] if row and row[0] else [bound.compose(_template(bound, "guard"))]


def describe(connection: Connection, name: tuple[str, str]) -> Existing | None:
    """What a relation of that name is, None where there is none."""
    row = connection.execute(_SQL["describe"], {"schema": name[0], "table": name[1]}).fetchone()
    return None if row is None else Existing(*row)


def take_back(
    connection: Connection, bound: BoundSync, existing: Existing | None, following: rekey.Following
) -> list[sql.Composed]:
    """The DDL that leaves what is made now, of target and queue, to its owner alone. Who may read the target
    is who may read the source, and is granted that then."""
    queue = "freshvec", f"queue_{bound.name}"
    made = list(bound.tables) if existing is None or following.begins_anew else []
    if following or describe(connection, queue) is None:
        made.append(queue)
    return [_taken_back(made)] if made else []


def _taken_back(tables: Sequence[tuple[str, str]]) -> sql.Composed:
    names = [sql.Literal(quoted(*name).as_string()) for name in tables]
    return taken_back(sql.SQL(", ").join(sql.SQL("{}::regclass").format(name) for name in names))


def following(connection: Connection, bound: BoundSync, existing: Existing) -> rekey.Following:
    """How an existing target and its queue follow the key of the source; without one of its tables, or under
    a key of another number of columns, they begin anew."""
    drop = [bound.compose(_SQL["drop_view"])] if bound.is_shown else []
    drop.append(bound.compose(_template(bound, "drop_typed")))
    if any(describe(connection, name) is None for name in bound.tables[1:]):
        # Without their vectors, its rows say what is not so.
        return rekey.Following(ddl=[*drop, bound.compose(_SQL["drop"])], begins_anew=True)
    place, more = (quoted(*name) for name in rekey.copies(bound.name))
    named = {"target": place, "vectors": more, "kept_type": _kept_type(bound)}
    made = bound.compose(_template(bound, "create"), **named)
    private = _taken_back(rekey.copies(bound.name)[: len(bound.tables)])
    creating = sql.SQL(";\n").join([made, private])
    found = rekey.following(connection, bound, existing.oid, layout.kept_as(bound.sync), creating)
    return replace(found, ddl=[*drop, *found.ddl]) if found else found


def row_security(bound: BoundSync, existing: Existing | None) -> list[sql.Composed]:
    """The DDL that hides the embeddings of rows that the source hides."""
    if bound.has_row_security:
        name = "enable_row_security"
    elif existing is not None and existing.has_row_security:
        name = "disable_row_security"
    else:
        return []
    return [bound.compose(_SQL[name], table=quoted(*table)) for table in bound.tables]


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
    readable = [_text(*name) for name in bound.readable]
    names = {"oid": bound.source_oid, "target": _text(*bound.target_name), "readable": readable}
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
    queue = ("freshvec", f"queue_{bound.name}")
    if any(describe(connection, name) is None for name in (*bound.tables, queue)):
        return False
    tables = {"source": _text(*bound.source_name), "queue": _text(*queue), "tables": _texts(bound.tables)}
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


def view_removal(sync_name: str, view: tuple[str, str]) -> sql.Composed:
    """The DDL that takes a sync's view away."""
    functions = {name: quoted("freshvec", f"{name}_{sync_name}") for name in ("embedded", "nearest")}
    return sql.SQL(_SQL["drop_view"]).format(view=quoted(*view), **functions)


def _texts(tables: Iterable[tuple[str, str]]) -> list[str]:
    return [_text(*table) for table in tables]


def removal(sync_name: str, tables: Sequence[tuple[str, str]]) -> sql.Composed:
    """The DDL that takes the tables of a target and its queue away; it needs neither the source nor the
    model."""
    dropping = sql.SQL(_SQL["drop"]).format(
        tables=sql.SQL(", ").join(quoted(*table) for table in tables),
        queue=quoted("freshvec", f"queue_{sync_name}"),
        visible=quoted("freshvec", f"visible_{sync_name}"),
        answered=quoted("freshvec", f"answered_{sync_name}"),
        settled=quoted("freshvec", f"settled_{sync_name}"),
        guard=quoted("freshvec", f"guard_{sync_name}"),
    )
    return sql.SQL("; ").join([rekey.removal(sync_name), dropping])


def check_existing(connection: Connection, bound: BoundSync) -> Existing | None:
    """What has the target's name. Raises SchemaError when it, or what has its view's, is nothing this sync
    can use."""
    schema, table = bound.target_name
    trust.check(connection, bound)
    existing = describe(connection, bound.target_name)
    if existing is None:
        view = describe(connection, bound.view_name) if bound.is_shown else None
        if view is not None and not view.is_ours:
            problem = "a table or view of that name exists and was not made for this sync"
            raise SchemaError(
                f"use the view of sync {bound.name!r},", ".".join(bound.view_name), problem, _RENAME
            )
        return None
    subject = f"{schema}.{table}"
    if not existing.is_ours:
        problem = "a table of that name exists and was not made by freshvec"
        raise SchemaError(f"use the target of sync {bound.name!r},", subject, problem, _RENAME)
    wanted, has = _type_wanted(bound), _type_there(connection, bound, existing)
    if existing.kept_as is None or has is None:
        raise _lost(bound, bound.target_name if existing.kept_as is None else bound.vectors_name)
    if existing.kept_as != layout.kept_as(bound.sync):
        raise _other_layout(bound, existing.kept_as)
    if has != wanted:
        raise SchemaError(
            f"use the target of sync {bound.name!r},",
            subject,
            f"its embeddings are {has}, but model {bound.model.name} with type {bound.sync.target.type} "
            f"gives {wanted}",
            f"`freshvec swap {bound.declared_name} --from-file` keeps them while others are made; or name "
            "another target.",
        )
    return existing


def _lost(bound: BoundSync, name: tuple[str, str]) -> SchemaError:
    return SchemaError(
        f"use the target of sync {bound.name!r},",
        ".".join(name),
        "it has no column of vectors, as after DROP EXTENSION vector CASCADE, or was not made by freshvec",
        f"If freshvec made it, DROP TABLE {quoted_name(*name)} CASCADE; and all is encoded again. "
        f"Else name another one: {_ANOTHER}",
    )


def _other_layout(bound: BoundSync, kept_as: str) -> SchemaError:
    remedy = f"Name another target, or `freshvec remove {bound.declared_name}` first."
    if "vector_hash" not in (kept_as, layout.kept_as(bound.sync)):
        swap = f"`freshvec swap {bound.declared_name} --from-file`"
        remedy = f"{swap} keeps them while others are made; or name another target."
    return SchemaError(
        f"use the target of sync {bound.name!r},",
        ".".join(bound.target_name),
        f"its vectors are {_LAYOUTS[kept_as]}, and are declared to be {_LAYOUTS[layout.kept_as(bound.sync)]}",
        remedy,
    )


def _type_wanted(bound: BoundSync) -> str:
    kept = _kept_type(bound) if bound.sync.chunk is None else bound.vector_type
    return kept.as_string(None).replace('"', "").split(".")[-1]


def _type_there(connection: Connection, bound: BoundSync, existing: Existing) -> str | None:
    """The type of what an existing target keeps; of passages, that of their vectors."""
    if bound.sync.chunk is not None:
        chunks = describe(connection, bound.vectors_name)
        if chunks is None:
            return _type_wanted(bound)  # it is made
        existing = chunks
    return existing.kept_type.split(".")[-1] if existing.kept_type else None
