"""Vectors in a column of the source: kept as those of a table are, whoever else writes there."""

import pytest

from freshvec.db import connect
from freshvec.scans.retry import retry
from tests.integration.at_rest import Kept
from tests.integration.locking import apply_to, has_triggers, remove_from
from tests.support import NullEncoder, backfill, bound_sync, count, sync_of, until, wait_fresh


@pytest.mark.parametrize("kind", ["vector", "halfvec", "real[]"])
def test_rows_are_kept_and_edits_are_followed(column: Kept, kind: str) -> None:
    column.sync = sync_of("docs", target={"column": "embedding", "type": kind})
    if kind == "halfvec":  # whose numbers are rounded
        column.vector = "d.embedding::vector"
    with column.running() as worker:
        if kind != "halfvec":
            column.comes_to_rest(worker)
        wait_fresh(worker)
        assert count(column.app, "docs_embedded") == count(column.app, "docs WHERE body <> ''")
        assert column.verify().is_fresh


BY_OTHERS = {
    "taken out": "UPDATE docs SET embedding = NULL WHERE id = 3",
    "overwritten": "UPDATE docs SET embedding = '[1,1,1,1,1,1,1,1]' WHERE id BETWEEN 3 AND 5",
    "with a new row": "INSERT INTO docs (id, body, embedding) VALUES (70, 'new', '[1,1,1,1,1,1,1,1]')",
    "without a text": "INSERT INTO docs (id, embedding) VALUES (71, '[1,1,1,1,1,1,1,1]')",
    "and the text taken": "UPDATE docs SET body = NULL, embedding = '[1,1,1,1,1,1,1,1]' WHERE id = 4",
    "of a row that goes": "UPDATE docs SET embedding = NULL WHERE id = 6; DELETE FROM docs WHERE id = 6",
    "a row renumbered": "UPDATE docs SET id = 90 WHERE id = 7",
}


@pytest.mark.parametrize("what", BY_OTHERS)
def test_a_vector_that_others_write_is_made_anew(column: Kept, what: str) -> None:
    """No sweep is asked for, nor a walk."""
    with column.running():
        column.app.execute(BY_OTHERS[what].encode())
        until("the vector is that of the text", column.is_right)
    walked = column.app.execute("SELECT proven_at = walk_started_at FROM freshvec.sync").fetchone()
    assert walked == (True,)


def test_what_no_trigger_saw_is_found(column: Kept) -> None:
    backfill(column.settings, NullEncoder())
    column.app.execute("""SET session_replication_role = replica; ALTER TABLE docs DISABLE TRIGGER ALL;
        UPDATE docs SET embedding = NULL WHERE id = 3;
        UPDATE docs SET embedding = '[1,1,1,1,1,1,1,1]' WHERE id = 4;
        INSERT INTO docs (id, embedding) VALUES (71, '[1,1,1,1,1,1,1,1]');
        RESET session_replication_role""")
    report = column.verify()
    assert report.problems == {"missing": 1, "different": 2}
    assert sorted(report.examples["different"]) == [("4",), ("71",)]
    with column.running() as worker:
        column.comes_to_rest(worker)


def test_our_own_writes_are_not_noted(column: Kept) -> None:
    """Neither by the sync's own triggers, nor by those of another sync on the table."""
    other = sync_of("docs", "other", expression="views::text", target={"table": "other_embedding"})
    mine, column.sync = column.sync, other
    backfill(column.settings, NullEncoder())
    column.sync = mine
    column.app.execute("ALTER TABLE freshvec.queue_other SET (autovacuum_enabled = off)")
    backfill(column.settings, NullEncoder())
    for queue in ("queue_docs", "queue_other"):
        looked = column.app.execute("SELECT pg_relation_size(%s)", (f"freshvec.{queue}",)).fetchone()
        assert looked == (0,), f"nothing was ever written to {queue}"


def test_a_text_that_a_trigger_changes_amid_our_write_is_noted(column: Kept) -> None:
    """Our transaction is told apart by what it writes, and not by whose it is."""
    backfill(column.settings, NullEncoder())
    column.app.execute("""CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN UPDATE public.docs SET body = 'follows ' || NEW.body WHERE id = NEW.views; RETURN NULL; END $$;
        CREATE TRIGGER follow AFTER UPDATE ON docs FOR EACH ROW WHEN (NEW.embedding IS DISTINCT FROM
        OLD.embedding AND NEW.views > 0) EXECUTE FUNCTION follow()""")
    with column.running():
        column.app.execute("UPDATE docs SET views = 9, body = 'leads' WHERE id = 2")
        until("the other row follows", lambda: count(column.app, "docs WHERE body = 'follows leads'") == 1)
        until("with its vector", column.is_right)


def test_triggers_of_the_application_find_what_they_name(column: Kept) -> None:
    """By the path that the database gives; our own statements keep theirs."""
    database = column.app.info.dbname
    column.app.execute(f"""CREATE SCHEMA shop; CREATE TABLE shop.audit (id int);
        ALTER DATABASE {database} SET search_path = shop, public;
        CREATE FUNCTION shop.audit() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO audit VALUES (NEW.id); RETURN NULL; END $$;
        CREATE TRIGGER audit AFTER UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION shop.audit()""")
    with column.running() as worker:
        assert count(column.app, "shop.audit") == 50
        column.app.execute("SET search_path = shop, public")
        column.comes_to_rest(worker)


def test_a_text_that_cannot_be_encoded_takes_its_vector_out(column: Kept) -> None:
    column.encoder = NullEncoder(refuse="awful")
    with column.running() as worker:
        column.app.execute("UPDATE docs SET body = 'awful' WHERE id = 3")
        until("it has failed", lambda: column.status()["rows_failed"] == 1)
        wait_fresh(worker)
        assert count(column.app, "docs WHERE embedding IS NULL") == 1
        assert count(column.app, "docs_embedded") == 49
        column.app.execute("UPDATE docs SET body = 'better' WHERE id = 3")
        until("it is right again", column.is_right)


REFUSALS = {
    "constraint": (
        "ALTER TABLE docs ADD CHECK (id <> 7) NOT VALID",
        "violates check constraint",
        "ALTER TABLE docs DROP CONSTRAINT docs_id_check",
    ),
    "raising trigger": (
        """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN RAISE 'row % is closed', NEW.id; END $$;
           CREATE TRIGGER refuse BEFORE UPDATE ON docs FOR EACH ROW WHEN (NEW.id = 7)
           EXECUTE FUNCTION refuse()""",
        "row 7 is closed",
        "DROP TRIGGER refuse ON docs",
    ),
    "silent trigger": (
        """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
           CREATE TRIGGER refuse BEFORE UPDATE ON docs FOR EACH ROW WHEN (NEW.id = 7)
           EXECUTE FUNCTION refuse()""",
        "a trigger of the table prevents or changes it",
        "DROP TRIGGER refuse ON docs",
    ),
    "changing trigger": (
        """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN NEW.embedding := '[1,1,1,1,1,1,1,1]'; RETURN NEW; END $$;
           CREATE TRIGGER refuse BEFORE UPDATE ON docs FOR EACH ROW WHEN (NEW.id = 7)
           EXECUTE FUNCTION refuse()""",
        "a trigger of the table prevents or changes it",
        "DROP TRIGGER refuse ON docs",
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_a_row_that_the_table_refuses_to_change_has_the_reason(column: Kept, what: str) -> None:
    refuse, reason, allow = REFUSALS[what]
    apply_to(column)
    column.app.execute(refuse.encode())
    with column.running() as worker:
        assert column.status()["rows_failed"] == 1
        assert column.status()["rows_fresh"] == 49, "those beside it are written"
        (error,) = column.app.execute("SELECT error FROM freshvec.failures()").fetchone() or ("",)
        assert reason in error
        assert count(column.app, "docs_embedded WHERE id = 7") == 0
        column.app.execute(allow.encode())
        with connect(column.settings.database.url, "test") as connection:
            assert retry(connection, bound_sync(connection, column.settings, column.encoder)) == 1
        until("it is written", column.is_right)
        column.comes_to_rest(worker)


def test_rows_that_hold_their_vector_are_not_written_again(column: Kept) -> None:
    """As after a restore that left the companion out: all is encoded, and no row has another version."""
    backfill(column.settings, NullEncoder())
    before = column.app.execute("SELECT id, xmin FROM docs ORDER BY id").fetchall()
    column.app.execute("TRUNCATE docs_embedding")
    encoder = NullEncoder()
    backfill(column.settings, encoder)
    assert encoder.encoded == 50
    assert column.is_right()
    assert column.app.execute("SELECT id, xmin FROM docs ORDER BY id").fetchall() == before


def test_removal_leaves_the_column_and_its_vectors(column: Kept) -> None:
    backfill(column.settings, NullEncoder())
    assert remove_from(column)
    assert count(column.app, "docs WHERE embedding IS NOT NULL") == 50
    assert not has_triggers(column)
    assert column.app.execute("SELECT to_regclass('docs_embedding')").fetchone() == (None,)
    column.app.execute("UPDATE docs SET body = 'edited', embedding = NULL")
