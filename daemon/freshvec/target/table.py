"""The target table: one row per source row, its embedding and what that was made from."""

from psycopg import sql

from freshvec.db import Connection, queries, quoted
from freshvec.errors import SchemaError
from freshvec.source.bound import BoundSync, view_of

_SQL = queries("target/table")


def statements(bound: BoundSync) -> list[sql.Composed]:
    """The DDL of the target table and its view."""
    return [bound.compose(_SQL["create"]), bound.compose(_SQL["create_view"])]


def grants(connection: Connection, bound: BoundSync, worker_role: str | None) -> list[sql.Composed]:
    """What is still to be granted: who may read the source may read its embeddings; the daemon's role may do its work."""
    names = {"oid": bound.source_oid, "target": sql.Identifier(*bound.target_name).as_string()}
    roles = [row[0] for row in connection.execute(_SQL["readers"], names)]
    ddl = [
        bound.compose(_SQL["grant"], role=quoted(role) if role else sql.SQL("PUBLIC"))
        for role in sorted(roles, key=str)
    ]
    if worker_role:
        ddl.append(bound.compose(_SQL["grant_worker"], role=quoted(worker_role)))
    return ddl


def removal(sync_name: str, target: tuple[str, str]) -> sql.Composed:
    """The DDL that takes view, target and queue away; it needs neither the source nor the model."""
    return sql.SQL(_SQL["drop"]).format(
        view=quoted(*view_of(target)), target=quoted(*target), queue=quoted("freshvec", f"queue_{sync_name}")
    )


def check_existing(connection: Connection, bound: BoundSync) -> None:
    """Raise SchemaError when a table of the target's name, or a view of its view's, is not one this sync can write to."""
    schema, table = bound.target_name
    found = connection.execute(_SQL["describe"], {"schema": schema, "table": table}).fetchone()
    remedy = 'Name another one: target = { table = "…" }.'
    if found is None:
        schema, view = bound.view_name
        if connection.execute(_SQL["describe"], {"schema": schema, "table": view}).fetchone():
            problem = "a table or view of that name exists and was not made for this sync"
            raise SchemaError(f"use the view of sync {bound.name!r},", f"{schema}.{view}", problem, remedy)
        return
    kind, ours = found
    subject = f"{schema}.{table}"
    if not ours or kind is None:
        problem = "a table of that name exists and was not made by freshvec"
        raise SchemaError(f"use the target of sync {bound.name!r},", subject, problem, remedy)
    wanted = bound.vector_type.as_string(None).replace('"', "").split(".")[-1]
    has = kind.split(".")[-1]
    if has != wanted:
        raise SchemaError(
            f"use the target of sync {bound.name!r},",
            subject,
            f"its embeddings are {has}, but model {bound.model.name} with type {bound.sync.target.type} gives {wanted}",
            f"Name another target, or `freshvec remove {bound.name}` first.",
        )
