"""The two roles: who applies, and who runs the daemon, with what each may do."""

from collections.abc import Iterator

from freshvec.db import queries
from freshvec.doctor.finding import Finding, fault, ok, warning
from freshvec.doctor.place import Place
from freshvec.storage import split_name
from freshvec.storage import written_name as _name

_SQL = queries("doctor/roles")
_MANUAL = "docs/operations.md, Roles, has all of it."


def roles(place: Place) -> Iterator[Finding]:
    """The connected role, `database.worker_role` if one is named, and their rights on every source."""
    found = [*_connected(place), *_worker(place)]
    yield from found
    me = place.connection.execute(_SQL["me"]).fetchone()
    assert me is not None
    if not found:
        worker = place.settings.database.worker_role
        super_user = ", a superuser, which is more than it needs" if me[1] else ""
        yield ok("roles", f"{me[0]}{super_user}" + (f"; the worker is {worker}" if worker else ""))


def _connected(place: Place) -> Iterator[Finding]:
    row = place.connection.execute(_SQL["me"]).fetchone()
    assert row is not None
    name, _, sees_all, may_create, is_made, may_probe = row
    database = _name(place.connection.info.dbname)
    if not is_made and not may_create:
        yield fault(
            "roles",
            f"{name} may not make the schema freshvec",
            "nothing can be applied",
            f"As a superuser: GRANT CREATE ON DATABASE {database} TO {_name(name)}; {_MANUAL}",
        )
    if not may_probe:
        yield fault(
            "roles",
            f"{name} may not make temporary views",
            "freshvec asks Postgres by one what an expression or where depends on",
            f"As a superuser: GRANT TEMPORARY ON DATABASE {database} TO {_name(name)};",
        )
    yield from _on_tables(place, name, sees_all, needs_triggers=not is_made)


def _worker(place: Place) -> Iterator[Finding]:
    name = place.settings.database.worker_role
    if name is None:
        return
    row = place.connection.execute(_SQL["worker"], {"role": name}).fetchone()
    if row is None:
        yield fault(
            "roles",
            f"there is no role {name}, which database.worker_role names",
            "nothing can be granted to it",
            f"As a superuser: CREATE ROLE {_name(name)} LOGIN; {_MANUAL}",
        )
        return
    may_login, is_super, sees_all = row
    if not may_login:
        remedy = f"ALTER ROLE {_name(name)} LOGIN;"
        yield fault("roles", f"{name} may not log in", "the daemon runs as it", remedy)
    if is_super:
        yield warning(
            "roles",
            f"the worker's role {name} is a superuser",
            "functions of other roles would run with its rights, so expressions with such are refused",
            f"ALTER ROLE {_name(name)} NOSUPERUSER; then: freshvec apply",
        )
    if name != place.connection.info.user:
        yield from _on_tables(place, name, sees_all, needs_triggers=False, is_granted_later=True)


def _on_tables(
    place: Place, role: str, sees_all: bool, *, needs_triggers: bool, is_granted_later: bool = False
) -> Iterator[Finding]:
    """What the role lacks on the syncs' tables. What `apply` grants is said by the sync's own finding."""
    for sync in place.settings.sync:
        schema, table = split_name(sync.table)
        given = {"role": role, "schema": schema, "table": table}
        row = place.connection.execute(_SQL["on_table"], given).fetchone()
        if row is None:
            continue  # that there is none is a finding of the sync
        may_read, may_trigger, is_hidden, owner = row
        if not may_read and not is_granted_later:
            yield fault(
                "roles",
                f"{role} may not read {sync.table}",
                "its rows cannot be embedded",
                f"As {owner}: GRANT SELECT ON {sync.table} TO {_name(role)};",
            )
        if needs_triggers and not may_trigger:
            yield fault(
                "roles",
                f"{role} may not make triggers on {sync.table}",
                "its changes cannot be noted",
                f"Run freshvec apply as {owner}, or: GRANT TRIGGER ON {sync.table} TO {_name(role)};",
            )
        if is_hidden and not sees_all:
            yield fault(
                "roles",
                f"row security hides rows of {sync.table} from {role}",
                "rows that it does not see would be taken for deleted, so none is read",
                f"As a superuser: ALTER ROLE {_name(role)} BYPASSRLS;",
            )
