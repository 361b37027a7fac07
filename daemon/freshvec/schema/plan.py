"""Plan: what a sync needs in the database, as DDL, and what of it is lacking."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg import sql

from freshvec.capture import triggers
from freshvec.capture.triggers import Change
from freshvec.config import Sync
from freshvec.db import Connection, queries, quoted
from freshvec.errors import SchemaError
from freshvec.records import Model
from freshvec.schema import column, identity, migrations, precision
from freshvec.schema.editions import edition_of
from freshvec.schema.identity import Difference
from freshvec.schema.objects import all_exist, hash_of, shape_of, texts
from freshvec.source import layout
from freshvec.source.bind import bind
from freshvec.source.bound import BoundSync
from freshvec.source.locks import ATTEMPT_SECONDS
from freshvec.target import index, table
from freshvec.target.rekey import Following

_SQL = queries("schema/plan")
# What a definition notes as it was declared.
_DECLARED: Any = {"columns": True, "expression": True, "where": True, "chunk": True, "target": {"dimensions"}}


@dataclass(frozen=True)
class Applied:
    """What the database knows of a sync."""

    id: int
    definition: str
    shape: str
    identity: str
    generation: int
    granted: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What a sync needs in the database.

    `shape` is the DDL of all its objects but the triggers. `objects` is what must be run to have them, with
    no lock of the source that holds up anybody; `beside` copies a target for it before that, in a transaction
    of its own, since that may take long. `column` makes the source's column that vectors are to be written
    to, first of all; `triggers` and `strays` are made and dropped on tables of the application's.
    `access` is what is still to be granted or revoked, `readers` who then may read the target. `applied` is
    None while the database does not know the sync. `is_prepared` says that what may take long was done.
    """

    bound: BoundSync
    shape: tuple[str, ...]
    objects: tuple[str, ...]
    column: tuple[Change, ...]
    triggers: tuple[Change, ...]
    strays: tuple[Change, ...]
    access: tuple[str, ...]
    readers: tuple[str, ...]
    applied: Applied | None
    difference: Difference
    identity: str = ""  # as read when this was planned
    beside: tuple[str, ...] = ()
    has_target: bool = False
    is_prepared: bool = False

    @property
    def definition(self) -> str:
        """The text that tells whether an applied sync is still the declared one, on the same table."""
        bound = self.bound
        declared = {
            "table": bound.source_oid,
            "key": [[c.name, c.type, c.collation] for c in bound.key],
            "text": hashlib.sha256(bound.text.as_string(None).encode()).hexdigest(),
            "model": f"{bound.model.name} {bound.model.fingerprint.hex()}",
            "target": [*bound.target_name, bound.vector_type.as_string(None), *layout.own_column(bound.sync)],
            "declared": bound.sync.model_dump(include=_DECLARED, mode="json"),
        }
        return json.dumps(declared)

    @property
    def shape_hash(self) -> str:
        return hash_of(self.shape)

    @property
    def lacking(self) -> tuple[str, ...]:
        """All the DDL that is to be run, but for `access`."""
        return _ddl(self.column) + self.beside + self.objects + _ddl(self.triggers + self.strays)

    @property
    def is_redefined(self) -> bool:
        """Whether another text, model, key, table or target is declared than was applied."""
        return self.applied is None or self.applied.definition != self.definition

    @property
    def needs_fence(self) -> bool:
        """Whether all rows of the target are looked at, since it may hold fences that are yet to be given."""
        return self.has_target and (self.is_redefined or self.difference.whole)

    @property
    def needs_preparing(self) -> bool:
        """Whether something is to be done first that takes long where the target is large."""
        return not self.is_prepared and (bool(self.beside) or self.needs_fence)

    def is_of_the_same(self, other: "Plan") -> bool:
        """Whether both were made of one declaration, table and binding."""
        ours, theirs = ((plan.definition, plan.identity, plan.bound.generation) for plan in (self, other))
        return ours == theirs

    @property
    def is_noted_otherwise(self) -> bool:
        """Whether transactions may be open whose changes were noted by other rules than will hold, or not at
        all. The first triggers wait for whoever wrote before them."""
        return self.applied is not None and (self.is_redefined or self.difference.whole)

    @property
    def needs_objects(self) -> bool:
        """Whether queue, target or functions are to be made: without them nothing can run. Triggers alone may
        wait."""
        return self.shape[0] in self.objects  # all of the shape is run, or none of it

    @property
    def renews_key(self) -> bool:
        """Whether what has the key's types is dropped, and target and queue made otherwise."""
        return any(re.search("^DROP FUNCTION ", statement, re.MULTILINE) for statement in self.objects)

    def noted(
        self, identity: str, *, trouble: str | None, walk: bool, is_new_binding: bool
    ) -> dict[str, Any]:
        """What is kept of it in `freshvec.sync`: the parameters of `insert_sync` and `define_sync`."""
        bound = self.bound
        tables = {"source": bound.source_name, "target": bound.target_name, "vectors": bound.vectors_name}
        return {
            **{f"{what}_schema": schema for what, (schema, _) in tables.items()},
            **{f"{what}_table": table for what, (_, table) in tables.items()},
            "name": bound.name,
            "source_oid": bound.source_oid,
            "vectors_column": layout.vector_column(bound.sync),
            "model": bound.model.name,
            "fingerprint": bound.model.fingerprint,
            "definition": self.definition,
            "shape": self.shape_hash,
            "identity": identity,
            "granted": list(self.readers),
            "trouble": trouble,
            "walk": walk,
            "is_new_binding": is_new_binding,
        }

    def without_ddl(self) -> "Plan":
        """The same binding, with nothing made, mended or granted. Who was given the target stays noted."""
        readers = self.applied.granted if self.applied else ()
        nothing: dict[str, Any] = dict.fromkeys(
            ("beside", "objects", "column", "triggers", "strays", "access"), ()
        )
        return replace(self, **nothing, readers=readers)

    @property
    def is_applied(self) -> bool:
        """Whether nothing is to be made, mended or walked."""
        return not (self.lacking or self.is_redefined or self.difference.is_binding)


def plan(connection: Connection, sync: Sync, model: Model, worker_role: str | None = None) -> Plan:
    """The sync bound to the database, its DDL, and what of it is lacking. Changes nothing.

    Raises SchemaError or DatabaseError for whatever would keep it from being applied, and LockedError.
    """
    knows = not migrations.pending(connection)
    bound, now = _bind_as_it_is(connection, sync, model, knows=knows)
    existing = table.check_existing(connection, bound)
    index.check(bound)
    shape = shape_of(connection, bound)
    mending, strays = tuple(triggers.mending(connection, bound)), tuple(triggers.strays(connection, bound))
    made = column.changes(bound)
    planned = Plan(bound, shape, shape, made, mending, strays, (), (), None, identity.difference("", ""))
    planned = replace(planned, has_target=existing is not None)
    if not knows:
        access = table.access(connection, bound, [], worker_role)
        private = table.take_back(connection, bound, existing, Following())
        security = texts(private + table.row_security(bound, existing), connection)
        return replace(
            planned,
            objects=shape + security,
            access=texts(_schema_rights(worker_role) + access.ddl, connection),
            readers=_readers(access),
            identity=now,
        )
    _check_target_free(connection, bound)
    applied = _applied(connection, sync.name)
    if applied is not None:
        bound = replace(bound, id=applied.id, generation=applied.generation)
    planned = replace(planned, bound=bound, applied=applied)
    precision.check(bound, applied.definition if applied else None)
    column.changes(bound, is_applied=applied is not None and not planned.is_redefined)
    beside, objects = _objects(connection, planned, existing)
    given = list(applied.granted) if applied else []
    planned = replace(planned, beside=beside, objects=objects)
    access = table.access(connection, bound, given, worker_role, is_renewed=planned.renews_key)
    rights = [] if _has_schema_rights(connection, worker_role) else _schema_rights(worker_role)
    return replace(
        planned,
        access=texts(rights + access.ddl, connection),
        readers=_readers(access),
        difference=identity.difference(applied.identity if applied else "", now),
        identity=now,
    )


def _bind_as_it_is(connection: Connection, sync: Sync, model: Model, *, knows: bool) -> tuple[BoundSync, str]:
    """The sync bound to its table, and the identity of the very table that it is bound to.

    The application's DDL may commit between any two looks. So the identity is read between two bindings that
    are the same, and before all else: what changes later is a difference at the next look.
    """
    bound = _bind(connection, sync, model, knows=knows)
    while True:
        now = identity.read_alone(connection, bound)
        again = _bind(connection, sync, model, knows=knows)
        if again == bound:
            return bound, now
        bound = again


def _bind(connection: Connection, sync: Sync, model: Model, *, knows: bool) -> BoundSync:
    """The sync bound to its table. A table that was renamed is named."""
    try:
        bound = bind(connection, sync, model, ATTEMPT_SECONDS)
        return replace(bound, edition=edition_of(connection, sync.name)) if knows else bound
    except SchemaError as error:
        row = connection.execute(_SQL["renamed"], {"name": sync.name}).fetchone() if knows else None
        if row is None or "no such table" not in error.problem:
            raise
        remedy = f'If that is meant, write table = "{row[0]}" and run `freshvec apply`; else rename it back.'
        problem = f"there is no such table; the one it was applied to is now {row[0]}"
        raise SchemaError(error.operation, error.subject, problem, remedy) from error


def _objects(
    connection: Connection, planned: Plan, existing: table.Existing | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The DDL of the objects, triggers apart: all of it where one is missing or made otherwise; and what is
    to be copied before."""
    bound, applied = planned.bound, planned.applied
    following = table.following(connection, bound, existing) if existing is not None else Following()
    is_shaped = applied is not None and applied.shape == planned.shape_hash and all_exist(connection, bound)
    objects = texts(following.ddl, connection)
    if following or not is_shaped:
        objects += planned.shape
    else:
        objects += texts(table.mending(connection, bound), connection)
    objects += texts(table.take_back(connection, bound, existing, following), connection)
    if existing is None or following or existing.has_row_security != bound.has_row_security:
        objects += texts(table.row_security(bound, existing), connection)
    return texts(following.beside, connection), objects


def _ddl(changes: Sequence[Change]) -> tuple[str, ...]:
    return tuple(ddl for change in changes for ddl in texts(change.statements))


def _applied(connection: Connection, name: str) -> Applied | None:
    row = connection.execute(_SQL["find_sync"], {"name": name}).fetchone()
    if row is None:
        return None
    number, definition, shape, noted, generation, granted, _ = row
    return Applied(number, definition, shape, noted, generation, tuple(granted))


def _readers(access: table.Access) -> tuple[str, ...]:
    """Who may read the target, as it is noted: "" stands for everybody."""
    return tuple(role or "" for role in access.granted)


def _schema_rights(worker_role: str | None) -> list[sql.Composed]:
    return [sql.SQL(_SQL["grant_schema"]).format(role=quoted(worker_role))] if worker_role else []


def _has_schema_rights(connection: Connection, worker_role: str | None) -> bool:
    row = connection.execute(_SQL["worker_rights"], {"role": worker_role}).fetchone()
    return worker_role is None or bool(row and row[0])


def _check_target_free(connection: Connection, bound: BoundSync) -> None:
    schema, name = bound.target_name
    names = {"target_schema": schema, "target_table": name, "name": bound.name}
    if other := connection.execute(_SQL["target_taken"], names).fetchone():
        raise SchemaError(
            f"use the target of sync {bound.name!r},",
            f"{schema}.{name}",
            f"sync {other[0]!r} already writes to it",
            f'Name another one: target = {{ table = "…" }}, or `freshvec remove {other[0]}`.',
        )
