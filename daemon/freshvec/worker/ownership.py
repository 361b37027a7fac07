"""Ownership: which worker keeps a sync. An advisory lock on the listener's connection, gone with it."""

from freshvec.db import LOCK_CLASS, Connection, queries, translated
from freshvec.errors import NotOwnedError
from freshvec.schema import identity, migrations

_SQL = queries("worker/ownership")


def own(connection: Connection, names: list[str]) -> set[str]:
    """Become the owner of those syncs that nobody owns, as long as this connection lives; gives their
    names."""
    with translated("own", "the syncs"):
        found = connection.execute(_SQL["own"], {"class": LOCK_CLASS, "names": names})
        return {name for (name,) in found}


def disown(connection: Connection, name: str) -> None:
    """Let another worker have it."""
    with translated("disown", f"sync {name!r}"):
        connection.execute(_SQL["disown"], {"class": LOCK_CLASS, "name": name})


def owner(connection: Connection, name: str) -> tuple[int, str] | None:
    """Backend pid and application name of a sync's owner."""
    with translated("find the owner of", f"sync {name!r}"):
        row = connection.execute(_SQL["owner"], {"class": LOCK_CLASS, "name": name}).fetchone()
    return None if row is None else (row[0], row[1])


def refusal(connection: Connection, name: str) -> NotOwnedError:
    """Why a backfill by hand is not to be."""
    holder = owner(connection, name)
    return NotOwnedError(
        "backfill",
        f"sync {name!r}",
        f"a running worker keeps it fresh (backend {holder and holder[0]})",
        "See `freshvec status`; stop that worker first if you mean to do it by hand.",
    )


def keep_trouble(connection: Connection, name: str, trouble: str | None) -> None:
    """Let `status` say why the sync is not kept as declared; None once it is."""
    with translated("note the trouble of", f"sync {name!r}"):
        connection.execute(_SQL["trouble"], {"name": name, "trouble": trouble})


def has_owners_rights(connection: Connection, oid: int) -> bool:
    """Whether this role may do with a table what its owner may."""
    row = connection.execute(_SQL["has_owners_rights"], {"oid": oid}).fetchone()
    return bool(row and row[0])


def generation(connection: Connection, name: str) -> int:
    """The generation of a sync, 0 while it is not applied."""
    is_made = migrations.is_bootstrapped(connection)
    return (identity.generation(connection, name) if is_made else None) or 0
