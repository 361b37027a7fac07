"""What may happen to a table that is kept, to its triggers and to its target: each is noticed and healed by
itself."""

import pytest

from freshvec.health import status
from tests.integration.at_rest import Kept, triggers
from tests.support import Connection, count, exists, sync_of, until

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
    "target's triggers disabled": """ALTER TABLE docs_embedding DISABLE TRIGGER ALL;
        DELETE FROM docs_embedding WHERE id = 3""",
    "target's trigger dropped": """DROP TRIGGER freshvec_changed ON docs_embedding;
        DELETE FROM docs_embedding WHERE id = 3""",
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


def test_a_swap_and_the_swap_back_leave_triggers_on_the_kept_table_alone(kept: Kept) -> None:
    back = "BEGIN; ALTER TABLE docs RENAME TO docs_new; ALTER TABLE docs_old RENAME TO docs; COMMIT"
    with kept.running() as worker:
        happen(kept.app, SWAP)
        kept.comes_to_rest(worker)
        assert triggers(kept.app) == {"docs"}
        happen(kept.app, back)
        kept.comes_to_rest(worker)
        assert triggers(kept.app) == {"docs"}
        assert kept.app.execute("SELECT body FROM docs WHERE id = 30").fetchone() == ("nobody cares",)


REFUSED = {
    "edit": "UPDATE docs SET body = 'edited' WHERE id = 7",
    "insert": "INSERT INTO docs VALUES (700, 'new')",
    "delete": "DELETE FROM docs WHERE id = 7",
    "to null": "UPDATE docs SET body = NULL WHERE id = 7",
    "there and back": "UPDATE docs SET body = body WHERE id = 7",
    "many": "UPDATE docs SET body = body || '!' WHERE id > 10",
}


@pytest.mark.parametrize("edit", REFUSED.values(), ids=REFUSED.keys())
def test_edits_arrive_though_the_fences_began_again(kept: Kept, edit: str) -> None:
    with kept.running():
        kept.app.execute("UPDATE docs_embedding SET fence = fence + 1000")
        kept.app.execute("ALTER SEQUENCE freshvec.fence RESTART")
        kept.app.execute(edit.encode())
        until("the edit has arrived", kept.is_right)
        refused = kept.status()["refused"]
        assert (refused > 0) == (edit not in (REFUSED["insert"], REFUSED["there and back"]))
        kept.comes_to_rest()


def test_a_restart_finds_the_fence_above_every_one_of_the_target(kept: Kept) -> None:
    with kept.running():
        pass
    kept.app.execute("UPDATE docs_embedding SET fence = fence + 1000")
    kept.app.execute("ALTER SEQUENCE freshvec.fence RESTART")
    kept.app.execute("DELETE FROM docs WHERE id = 7")
    kept.app.execute("UPDATE docs SET body = NULL WHERE id = 8")
    with kept.running():
        kept.comes_to_rest()


def test_a_function_that_the_expression_calls_is_replaced(kept: Kept) -> None:
    shout = """CREATE OR REPLACE FUNCTION public.shout(said text) RETURNS text LANGUAGE sql IMMUTABLE
               AS $$ SELECT upper(said) || '%s' $$"""
    kept.app.execute((shout % "!").encode())
    kept.sync, kept.text = sync_of("docs", expression="public.shout(body)"), "public.shout(body)"
    with kept.running() as worker:
        kept.app.execute((shout % "?").encode())
        kept.comes_to_rest(worker)


def test_the_key_column_is_renamed(kept: Kept) -> None:
    with kept.running() as worker:
        kept.app.execute("ALTER TABLE docs RENAME id TO number")
        kept.app.execute("UPDATE docs SET body = 'unseen' WHERE number = 7")
        kept.key = "number"
        kept.comes_to_rest(worker)


def test_the_key_is_replaced_by_another(kept: Kept) -> None:
    with kept.running() as worker:
        happen(
            kept.app,
            """ALTER TABLE docs ADD code int;
            UPDATE docs SET code = 1000 - id;
            ALTER TABLE docs DROP CONSTRAINT docs_pkey;
            ALTER TABLE docs ADD PRIMARY KEY (code), ALTER id DROP NOT NULL""",
        )
        kept.key = "code"
        kept.comes_to_rest(worker)


def test_the_key_becomes_one_of_two_columns(kept: Kept) -> None:
    with kept.running() as worker:
        happen(
            kept.app,
            """ALTER TABLE docs ADD part int NOT NULL DEFAULT 1;
            ALTER TABLE docs DROP CONSTRAINT docs_pkey, ADD PRIMARY KEY (part, id)""",
        )
        kept.comes_to_rest(worker)
        assert count(kept.app, "docs_embedding WHERE part = 1") > 0


def test_the_applications_ddl_goes_through_and_the_key_follows(kept: Kept) -> None:
    types = """SELECT string_agg(format_type(atttypid, NULL), ' ') FROM pg_attribute
                WHERE attrelid = 'docs_embedding'::regclass AND attname = 'id'
                   OR attrelid = 'freshvec.queue_docs'::regclass AND attname = 'k1'"""
    with kept.running() as worker:
        kept.app.execute("SET statement_timeout = '30s'")
        kept.app.execute("ALTER TABLE docs ALTER id TYPE bigint")
        kept.app.execute("INSERT INTO docs VALUES (5000000000, 'beyond int')")
        kept.comes_to_rest(worker)
        assert kept.app.execute(types).fetchone() == ("bigint bigint",)


def test_a_table_that_was_renamed_is_named_and_kept_again_once_it_is_back(kept: Kept) -> None:
    with kept.running() as worker:
        kept.app.execute("ALTER TABLE docs RENAME TO papers")
        worker.sweep()
        until("status names it", lambda: 'table = "public.papers"' in str(kept.status()["last_error"]))
        assert not status.is_fresh(kept.status())
        kept.app.execute("UPDATE papers SET body = 'meanwhile' WHERE id = 7")
        kept.app.execute("ALTER TABLE papers RENAME TO docs")
        kept.comes_to_rest(worker)


def test_the_schema_of_the_source_is_dropped_and_made_again(kept: Kept) -> None:
    kept.app.execute("CREATE SCHEMA library")
    kept.app.execute("ALTER TABLE docs SET SCHEMA library")
    kept.sync, kept.table, kept.target = sync_of("library.docs"), "library.docs", "library.docs_embedding"
    with kept.running() as worker:
        kept.app.execute("DROP SCHEMA library CASCADE")
        worker.sweep()
        until("status says so", lambda: "there is no such table" in str(kept.status()["last_error"]))
        assert not status.is_fresh(kept.status())
        kept.app.execute("CREATE SCHEMA library")
        kept.app.execute("CREATE TABLE library.docs (id int PRIMARY KEY, body text)")
        kept.app.execute("INSERT INTO library.docs VALUES (1, 'again'), (2, 'text 2')")
        kept.comes_to_rest(worker)


HANDS = {
    "deleted": "DELETE FROM docs_embedding WHERE id IN (3, 4)",
    "all deleted": "DELETE FROM docs_embedding",
    "truncated": "TRUNCATE docs_embedding",
    "another hash": "UPDATE docs_embedding SET content_hash = sha256('another') WHERE id = 5",
    "another vector": "UPDATE docs_embedding SET embedding = '[1,0,0,0,0,0,0,0]' WHERE id IN (5, 6)",
    "another key": "UPDATE docs_embedding SET id = 5000 WHERE id = 6",
    "an orphan": "INSERT INTO docs_embedding SELECT 5000, embedding, content_hash, fingerprint, fence"
    " FROM docs_embedding WHERE id = 6",
    "while replicating": "SET session_replication_role = replica; DELETE FROM docs_embedding WHERE id = 3",
}


@pytest.mark.parametrize("hand", HANDS.values(), ids=HANDS.keys())
def test_what_hands_change_in_the_target_is_noticed_at_once(kept: Kept, hand: str) -> None:
    with kept.running():
        kept.app.execute(hand.encode())
        kept.comes_to_rest()
        assert kept.status()["rows_fresh"] == count(kept.app, "docs WHERE body <> ''")


def test_what_we_write_to_the_target_ourselves_asks_for_no_walk(kept: Kept) -> None:
    walks = "SELECT walk_started_at, proven_at FROM freshvec.sync"
    with kept.running():
        before = kept.app.execute(walks).fetchone()
        for edit in REFUSED.values():
            kept.app.execute(edit.encode())
        kept.app.execute("UPDATE docs_embedding SET fence = fence")
        kept.app.execute("ALTER TABLE docs_embedding ADD tenant int DEFAULT 1")
        kept.app.execute("UPDATE docs_embedding SET tenant = 2")
        kept.comes_to_rest()
        assert kept.app.execute(walks).fetchone() == before


def test_rows_that_were_changed_in_the_target_unseen_are_found_by_verify(kept: Kept) -> None:
    with kept.running():
        kept.app.execute("SET freshvec.is_ours = on")
        kept.app.execute("DELETE FROM docs_embedding WHERE id IN (3, 4)")
        kept.app.execute("UPDATE docs_embedding SET content_hash = sha256('another') WHERE id = 5")
        kept.app.execute("UPDATE docs_embedding SET id = 5000 WHERE id = 6")
        assert kept.verify().problems == {"missing": 3, "different": 1, "orphaned": 1}
        assert kept.verify(repair=True).problems == {"missing": 3, "different": 1, "orphaned": 1}
        until("everything is right", lambda: not kept.wrong() and kept.verify().is_fresh)
