"""Waiting until what has changed is fresh: one row, or a whole sync."""

import time
from collections.abc import Mapping, Sequence

from psycopg import sql

from freshvec.config import Sync
from freshvec.db import Connection, queries, quoted, translated
from freshvec.errors import SchemaError
from freshvec.health.declared import NOT_APPLIED, Amiss, amiss

_SQL = queries("health/wait")
_FIRST_PAUSE = 0.005  # seconds; it doubles up to the longest
_LONGEST_PAUSE = 0.25


def wait_until_fresh(connection: Connection, name: str, key: Sequence[str], seconds: float) -> bool:
    """Whether all that was committed before this call has its vectors, within `seconds`.

    Of the row of that key, or without one of the whole sync. What is changed later is not waited for. Raises
    SchemaError where the sync is not applied, DatabaseError for a key that is none.
    """
    deadline = time.monotonic() + seconds
    with translated("wait for", f"sync {name!r}"):
        latest = _latest_transaction(connection, name)
        given = {"latest": latest, "name": name, "key": list(key)}
        pause = _FIRST_PAUSE
        while True:
            asked = time.monotonic()
            (is_fresh,) = connection.execute(_SQL["is_fresh"], given).fetchone() or (False,)
            now = time.monotonic()
            if is_fresh or now >= deadline:
                return bool(is_fresh)
            # A long queue is looked through each time: the server shall rest longer than it works.
            time.sleep(min(max(pause, 2 * (now - asked)), deadline - now))
            pause = min(2 * pause, _LONGEST_PAUSE)


def wait_until_as_declared(
    connection: Connection, sync: Sync, fingerprints: Mapping[str, str], seconds: float
) -> Amiss | None:
    """What is amiss with a sync that was applied, and still is after so many seconds; `fingerprints` as for
    `amiss`.

    Vectors of another definition than the declared one are not what is waited for, however fresh they are.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = amiss(connection, [sync], fingerprints).get(sync.name)
        now = time.monotonic()
        if found is None or found.state == NOT_APPLIED or now >= deadline:
            return found
        time.sleep(min(_LONGEST_PAUSE, deadline - now))


def _latest_transaction(connection: Connection, name: str) -> str:
    """The transaction up to which entries are waited for: later ones are of later changes."""
    queue = quoted("freshvec", f"queue_{name}")
    (is_there,) = connection.execute(_SQL["exists"], {"queue": queue.as_string(None)}).fetchone() or (False,)
    if not is_there:
        problem, remedy = "it was never applied", f"Run `freshvec apply {name}`, or a worker."
        raise SchemaError("wait for", f"sync {name!r}", problem, remedy)
    (latest,) = connection.execute(sql.SQL(_SQL["latest"]).format(queue=queue)).fetchone() or ("0",)
    return str(latest)
