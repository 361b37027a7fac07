"""DDL that commits while a sync is planned: what is noted is true of what was bound, or the next look tells
them apart.
"""

from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import psycopg
import pytest

from freshvec.db import connect
from freshvec.records import Model
from freshvec.schema import identity, migrations
from freshvec.schema.apply import apply
from freshvec.schema.plan import Plan, plan
from tests.support import MODEL, Connection, NullEncoder, settings_for, sync_of

NULL = Model(MODEL, 8, 256, NullEncoder.fingerprint)
SWAP = """
ALTER TABLE docs RENAME TO docs_between; ALTER TABLE docs_other RENAME TO docs;
ALTER TABLE docs_between RENAME TO docs_other
"""
# What happens, and what takes it back.
EVENTS = {
    "key widened": ("ALTER TABLE docs ALTER id TYPE numeric", "ALTER TABLE docs ALTER id TYPE bigint"),
    "swapped": (SWAP, SWAP),
    "row security": (
        "ALTER TABLE docs ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE docs DISABLE ROW LEVEL SECURITY",
    ),
    "triggers dropped": ("DROP TRIGGER freshvec_docs_update ON docs", ""),
    "granted": ("GRANT SELECT ON docs TO pg_monitor", "REVOKE SELECT ON docs FROM pg_monitor"),
}


class Interrupted:
    """A connection; before its statement number `at`, something happens in another session."""

    def __init__(self, connection: Connection, at: int, other: Connection, event: str) -> None:
        self._connection = connection
        self._at = at
        self._other = other
        self._event = event
        self.statements = 0

    def execute(self, *given: Any, **more: Any) -> Any:
        if self.statements == self._at:
            with suppress(psycopg.errors.LockNotAvailable):
                self._other.execute(self._event.encode())
        self.statements += 1
        return self._connection.execute(*given, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def essence(planned: Plan) -> tuple[object, ...]:
    """What a sync is bound by and what is done to it."""
    return replace(planned.bound, id=0, generation=0), planned.lacking, planned.access


@pytest.mark.parametrize(("event", "back"), EVENTS.values(), ids=EVENTS.keys())
def test_ddl_amid_a_plan_is_in_it_or_is_seen_at_the_next_look(
    url: str, docs: Connection, event: str, back: str
) -> None:
    docs.execute("CREATE TABLE docs_other (LIKE docs INCLUDING ALL)")
    (sync,) = settings_for(url, sync_of("docs")).sync
    with connect(settings_for(url, sync_of("docs")).database.url, "test") as connection:
        migrations.migrate(connection)
        at, seen = 0, 0
        while True:
            apply(connection, sync, NULL)
            interrupted = Interrupted(connection, at, docs, event)
            planned = plan(cast(Connection, interrupted), sync, NULL)
            if interrupted.statements <= at:
                break
            now, _ = identity.read(connection, planned.bound)
            if identity.is_same(planned.identity, now):
                assert essence(planned) == essence(plan(connection, sync, NULL)), f"before statement {at}"
                seen += 1
            docs.execute(back.encode())
            at += 1
        assert 0 < seen < at


# While what lacks is being made, something else is taken away, as far as no lock is in the way.
LOST = {
    "another trigger": "DROP TRIGGER freshvec_docs_update ON docs",
    "the view": "DROP VIEW docs_embedded",
}


@pytest.mark.parametrize("event", LOST.values(), ids=LOST.keys())
def test_ddl_amid_an_application_is_mended_or_is_seen_at_the_next_look(
    url: str, docs: Connection, event: str
) -> None:
    docs.execute("SET lock_timeout = '10ms'")
    settings = settings_for(url, sync_of("docs"))
    with connect(settings.database.url, "test") as connection:
        migrations.migrate(connection)
        at = 0
        while True:
            apply(connection, settings.sync[0], NULL)
            docs.execute("DROP TRIGGER freshvec_docs_insert ON docs")
            interrupted = Interrupted(connection, at, docs, event)
            bound, _ = apply(cast(Connection, interrupted), settings.sync[0], NULL)
            if interrupted.statements <= at:
                break
            if identity.is_as_noted(connection, bound):
                assert plan(connection, settings.sync[0], NULL).is_applied, f"before statement {at}"
            at += 1
