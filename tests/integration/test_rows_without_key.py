"""Rows whose key is NULL for a while, as where an application moves its key to another column."""

import pytest

from tests.staleness import stale
from tests.support import Connection, NullEncoder, count, running, settings_for, sync_of, until, wait_fresh

MOVED = """
BEGIN;
ALTER TABLE docs RENAME id TO old; ALTER TABLE docs ADD id bigint;
UPDATE docs SET id = old;
INSERT INTO docs (old, id, body) VALUES (60, NULL, 'without a key');
UPDATE docs SET id = 61 WHERE id IS NULL;
ALTER TABLE docs DROP CONSTRAINT docs_pkey, ALTER old DROP NOT NULL, ADD PRIMARY KEY (id);
COMMIT
"""
TAKEN_AND_GIVEN = """
BEGIN;
ALTER TABLE docs DROP CONSTRAINT docs_pkey; ALTER TABLE docs ALTER id DROP NOT NULL;
UPDATE docs SET id = NULL WHERE id = 3;
INSERT INTO docs VALUES (NULL, 'without a key');
DELETE FROM docs WHERE body = 'without a key';
UPDATE docs SET id = 70 WHERE id IS NULL;
ALTER TABLE docs ADD PRIMARY KEY (id);
COMMIT
"""


@pytest.mark.parametrize("children", [False, True])
@pytest.mark.parametrize("moves", [MOVED, TAKEN_AND_GIVEN], ids=["moved", "taken and given"])
def test_they_are_none_that_are_noted(docs: Connection, moves: str, children: bool) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 50) g")
    if children:  # then each row is noted by itself
        docs.execute("CREATE TABLE more () INHERITS (docs)")
    with running(settings_for(docs.info.dsn, sync_of("docs"), sweep_seconds=0.3), NullEncoder()) as worker:
        wait_fresh(worker)
        for statement in moves.split(";"):
            docs.execute(statement.encode())
        assert count(docs, "freshvec.queue_docs WHERE k1 IS NULL") == 0
        until("every row is right", lambda: stale(docs, NullEncoder()) == [])
        docs.execute("UPDATE docs SET body = body || ' again'")
        until("edits are followed", lambda: stale(docs, NullEncoder()) == [])
