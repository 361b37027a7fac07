"""What the tests of the index share: declarations, how it stands, and what keeps it from being built."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from freshvec.db import connect
from freshvec.target import index
from tests.integration.at_rest import Kept
from tests.support import Connection, NullEncoder, bound_sync, sync_of

HNSW = {"type": "hnsw"}
INDEXES = """
SELECT c.relname::text, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
 WHERE i.indrelid = to_regclass('docs_embedding') AND NOT i.indisprimary ORDER BY c.relname
"""


def indexes(app: Connection) -> dict[str, bool]:
    """The target's indexes on vectors, and whether each is valid."""
    return dict(app.execute(INDEXES).fetchall())


def is_built(app: Connection) -> bool:
    """Whether there is one index, and it is valid."""
    return list(indexes(app).values()) == [True]


def of(kept: Kept, **declared: Any) -> Kept:
    """The same table, its sync declared with that index; without one if none is given."""
    sync = sync_of("docs") | ({"index": declared} if declared else {})
    return Kept(kept.url, kept.app, sync, daemon={"sweep_seconds": 0.1})


def name_in(kept: Kept) -> str:
    with connect(kept.settings.database.url, "test") as connection:
        name = index.name_of(bound_sync(connection, kept.settings, NullEncoder()))
    assert name is not None
    return name


def oid_of(app: Connection, name: str) -> int:
    (oid,) = app.execute("SELECT to_regclass(%s)::oid", (name,)).fetchone() or (0,)
    return int(oid or 0)


@contextmanager
def held(url: str) -> Iterator[Connection]:
    """A transaction that has written to the target: no index is finished before it ends. Rows are written
    beside it."""
    with psycopg.connect(url) as session:
        session.execute("LOCK docs_embedding IN ROW EXCLUSIVE MODE")
        yield session


@contextmanager
def snapshot(url: str) -> Iterator[Connection]:
    """A transaction that looks at the database as it was: no index is valid before it ends. It holds no
    lock."""
    with psycopg.connect(url) as session:
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        session.execute("SELECT 1")
        yield session


def builder(app: Connection) -> int | None:
    """The session that builds an index which the catalogue has already."""
    query = "SELECT pid FROM pg_stat_progress_create_index JOIN pg_class c ON c.oid = index_relid"
    row = app.execute(query).fetchone()
    return None if row is None else int(row[0])
