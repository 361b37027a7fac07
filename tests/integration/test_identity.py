"""What may happen to a table that is kept, to its triggers and to its target: each is noticed and healed by
itself."""

import pytest

from tests.integration.at_rest import Kept, triggers
from tests.support import Connection, exists

SWAP = """
CREATE TABLE docs_new (LIKE docs INCLUDING ALL);
INSERT INTO docs_new SELECT id, body || ' copied', views FROM docs WHERE id > 10;
INSERT INTO docs_new VALUES (1000, 'only in the new one');
BEGIN; ALTER TABLE docs RENAME TO docs_old; ALTER TABLE docs_new RENAME TO docs; COMMIT;
UPDATE docs SET body = 'written after the swap' WHERE id = 20;
UPDATE docs_old SET body = 'nobody cares' WHERE id = 30
"""
# A restore of the application's schema: its embeddings keep their fences, ours begin again.
RESTORE = """
UPDATE docs_embedding SET fence = fence + 1000000;
DROP SCHEMA freshvec CASCADE;
UPDATE docs SET body = 'restored otherwise' WHERE id <= 5;
INSERT INTO docs VALUES (600, 'restored')
"""
EVENTS = {
    "swapped by rename": SWAP,
    "dropped and made again": """DROP TABLE docs;
        CREATE TABLE docs (id int PRIMARY KEY, body text, views int);
        INSERT INTO docs VALUES (1, 'again'), (2, 'text 2'), (70, 'new')""",
    "column rewritten": "ALTER TABLE docs ALTER body TYPE text USING upper(body)",
    "column's type changed": "ALTER TABLE docs ALTER body TYPE varchar(40) USING left(body, 5)",
    "load without triggers": """ALTER TABLE docs DISABLE TRIGGER ALL;
        INSERT INTO docs SELECT g, 'loaded ' || g FROM generate_series(100, 140) g;
        UPDATE docs SET body = 'loaded over' WHERE id = 7; DELETE FROM docs WHERE id = 8;
        ALTER TABLE docs ENABLE TRIGGER ALL""",
    "trigger disabled": """ALTER TABLE docs DISABLE TRIGGER freshvec_docs_update;
        UPDATE docs SET body = 'unseen' WHERE id = 7""",
    "all triggers disabled": """ALTER TABLE docs DISABLE TRIGGER ALL;
        UPDATE docs SET body = 'unseen' WHERE id = 7; DELETE FROM docs WHERE id = 8""",
    "trigger dropped": """DROP TRIGGER freshvec_docs_insert ON docs;
        INSERT INTO docs VALUES (700, 'unseen')""",
    "trigger dropped and made by hand": """DROP TRIGGER freshvec_docs_truncate ON docs; TRUNCATE docs;
        CREATE TRIGGER freshvec_docs_truncate AFTER TRUNCATE ON docs EXECUTE FUNCTION freshvec.capture_docs();
        ALTER TABLE docs ENABLE ALWAYS TRIGGER freshvec_docs_truncate""",
    "key widened": """ALTER TABLE docs ALTER id TYPE bigint;
        INSERT INTO docs VALUES (5000000000, 'beyond int')""",
    "key index rebuilt": """ALTER TABLE docs DROP CONSTRAINT docs_pkey; DELETE FROM docs WHERE id = 3;
        ALTER TABLE docs ADD PRIMARY KEY (id)""",
    "table rewritten": "VACUUM FULL docs;\nUPDATE docs SET body = 'after the rewriting' WHERE id = 2",
    "target truncated": "TRUNCATE docs_embedding",
    "target dropped": "DROP TABLE docs_embedding",
    "view dropped": "DROP VIEW docs_embedded",
    "queue dropped": """UPDATE docs SET body = 'maybe queued' WHERE id = 4; DROP TABLE freshvec.queue_docs;
        UPDATE docs SET body = 'not queued' WHERE id = 5""",
    "queue truncated": """UPDATE docs SET body = 'maybe queued' WHERE id = 4; TRUNCATE freshvec.queue_docs;
        DELETE FROM docs WHERE id = 5""",
    "capture function dropped": """DROP FUNCTION freshvec.capture_docs() CASCADE;
        UPDATE docs SET body = 'unseen' WHERE id = 4""",
    "sync's row deleted": """DELETE FROM freshvec.sync; UPDATE docs SET body = 'edited' WHERE id = 4""",
    "schema dropped": """DROP SCHEMA freshvec CASCADE; UPDATE docs SET body = 'unseen' WHERE id = 4;
        DELETE FROM docs WHERE id = 5""",
    "restored": RESTORE,
}


def happen(app: Connection, statements: str) -> None:
    """Each statement for itself, as an application sends them."""
    for statement in statements.split(";\n"):
        app.execute(statement.strip().encode())


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS.keys())
def test_what_happens_under_a_running_worker_is_healed(kept: Kept, event: str) -> None:
    with kept.running() as worker:
        happen(kept.app, event)
        kept.comes_to_rest(worker)
        assert triggers(kept.app) == {"docs"}
        assert exists(kept.app, "docs_embedded")


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS.keys())
def test_what_happened_while_no_worker_ran_is_healed(kept: Kept, event: str) -> None:
    with kept.running():
        pass
    happen(kept.app, event)
    with kept.running():
        kept.comes_to_rest()
        assert triggers(kept.app) == {"docs"}
        assert exists(kept.app, "docs_embedded")
