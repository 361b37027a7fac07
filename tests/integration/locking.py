"""What tests of locks share: one attempt, and an application that is in its way."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from freshvec.db import connect
from freshvec.records import Model
from freshvec.schema import migrations
from freshvec.schema.apply import apply, remove
from tests.integration.at_rest import Kept
from tests.support import MODEL, Connection, NullEncoder, count

ON_18 = pytest.mark.parametrize("either_url", ["18"], indirect=True)  # where it takes a second
NULL = Model(MODEL, NullEncoder.dimension, 256, NullEncoder.fingerprint)
LONG = "UPDATE docs SET body = 'the beginning of a text' WHERE id = 1 AND views = 0 -- and what is secret"


def apply_to(kept: Kept, patience: float = 0.0) -> bool:
    with connect(kept.settings.database.url, "apply") as connection:
        migrations.migrate(connection)
        return apply(connection, kept.settings.sync[0], NULL, patience=patience)[1]


def remove_from(kept: Kept, patience: float = 0.0) -> bool:
    with connect(kept.settings.database.url, "remove") as connection:
        return remove(connection, "docs", patience)


@contextmanager
def open_transaction(kept: Kept, statement: str, name: str = "reports") -> Iterator[Connection]:
    """A transaction of the application's that has run a statement."""
    with psycopg.connect(kept.url, application_name=name) as session:
        session.execute(statement.encode())
        yield session


def is_older_than(kept: Kept, session: Connection, seconds: float) -> bool:
    where = f"pid = {session.info.backend_pid} AND clock_timestamp() - xact_start > '{seconds} s'"
    return count(kept.app, f"pg_stat_activity WHERE {where}") == 1


def has_triggers(kept: Kept) -> bool:
    on_source = "tgrelid NOT IN (SELECT c.oid FROM pg_class c WHERE c.relname = 'docs_embedding')"
    return count(kept.app, f"pg_trigger WHERE tgname LIKE 'freshvec%' AND {on_source}") > 0
