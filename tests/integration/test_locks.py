"""Locks on the application's tables: given up soon, and who is in the way is named."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from freshvec.db import LOCK_CLASS, connect
from freshvec.errors import LockedError
from freshvec.schema.plan import plan
from freshvec.source.locks import held
from tests.integration.at_rest import Kept
from tests.integration.locking import (
    LONG,
    NULL,
    ON_18,
    apply_to,
    has_triggers,
    is_older_than,
    open_transaction,
    remove_from,
)
from tests.support import count, exists, running, sync_of, until


@pytest.mark.parametrize(
    ("either_url", "seconds"),
    [("18", 0.0), ("16", 0.0), ("18", 1.1)],
    ids=["18-new", "16-new", "18-old"],
    indirect=["either_url"],
)
def test_who_is_in_the_way_is_named_and_little_of_what_it_runs(kept: Kept, seconds: float) -> None:
    with open_transaction(kept, LONG) as session:
        until("it has been there for long", lambda: is_older_than(kept, session, seconds))
        with pytest.raises(LockedError) as refused:
            apply_to(kept)
        for part in (
            "public.docs",
            f"reports (pid {session.info.backend_pid}, user postgres, in a transaction since ",
            """ UTC, last ran "UPDATE docs SET body = 'the beginning of a text' WHERE id = …")""",
        ):
            assert part in str(refused.value)
        assert "secret" not in str(refused.value)
        assert not has_triggers(kept)
        session.commit()
    assert apply_to(kept)
    assert has_triggers(kept)
    assert not apply_to(kept)


def test_a_role_that_may_see_little_of_others_names_them_all_the_same(kept: Kept) -> None:
    kept.app.execute("CREATE ROLE lock_owner LOGIN")
    try:
        database = kept.app.info.dbname
        kept.app.execute(f"GRANT CREATE, TEMPORARY ON DATABASE {database} TO lock_owner".encode())
        kept.app.execute("GRANT CREATE, USAGE ON SCHEMA public TO lock_owner")
        kept.app.execute("ALTER TABLE docs OWNER TO lock_owner")
        owned = Kept(kept.url.replace("postgres:@", "lock_owner:@"), kept.app)
        with open_transaction(kept, LONG) as session:
            with pytest.raises(LockedError) as refused:
                apply_to(owned)
            named = f"reports (pid {session.info.backend_pid}, user postgres) is in the way"
            assert named in str(refused.value)
        assert apply_to(owned)
        assert remove_from(owned)
    finally:
        kept.app.execute("DROP OWNED BY lock_owner CASCADE")
        kept.app.execute("DROP ROLE lock_owner")


@ON_18
def test_nothing_is_asked_for_while_somebody_is_in_the_way_for_long(kept: Kept) -> None:
    with open_transaction(kept, LONG) as session, ThreadPoolExecutor() as pool:
        applying = pool.submit(apply_to, kept, 60.0)
        until("apply waits", lambda: exists(kept.app, "freshvec.sync"))
        until("it is there for long", lambda: is_older_than(kept, session, 1.2))
        while not is_older_than(kept, session, 2.0):
            assert count(kept.app, "pg_locks WHERE NOT granted") == 0
        assert not applying.done()
        session.commit()
        assert applying.result(60)


@ON_18
def test_a_request_that_waits_is_given_up_soon(kept: Kept) -> None:
    """Transactions that are new each time, so that apply does ask, and never get so old as to be left
    alone."""
    waits = """SELECT max(extract(epoch FROM clock_timestamp() - waitstart)) FROM pg_locks
                WHERE NOT granted AND locktype = 'relation'"""
    longest, requests = 0.0, 0
    with ThreadPoolExecutor() as pool, psycopg.connect(kept.url) as one, psycopg.connect(kept.url) as other:
        for session in (one, other):
            session.execute("SET lock_timeout = '500ms'")  # what it would wait for is apply's request
            session.commit()
        one.execute("UPDATE docs SET body = 'one' WHERE id = 1")
        applying = pool.submit(apply_to, kept, 60.0)
        for turn in range(5):
            last, following = (one, other) if turn % 2 == 0 else (other, one)
            while not is_older_than(kept, last, 0.3):
                (waited,) = kept.app.execute(waits).fetchone() or (None,)
                longest, requests = max(longest, float(waited or 0)), requests + (waited is not None)
            following.execute(f"UPDATE docs SET body = 'next' WHERE id = {turn + 10}".encode())
            last.commit()
        assert not applying.done()
        one.commit()
        other.commit()
        assert applying.result(60)
    assert requests > 0
    assert longest < 0.5  # 0.08, and what a busy machine adds


def test_an_apply_that_was_cut_off_is_shown_and_ended_by_a_worker(kept: Kept) -> None:
    with open_transaction(kept, LONG):
        with pytest.raises(LockedError):
            apply_to(kept)
        assert exists(kept.app, "docs_embedding")
        assert not has_triggers(kept)
        kept.app.execute("UPDATE docs SET body = 'unseen' WHERE id = 7")
    with kept.running() as worker:
        kept.comes_to_rest(worker)


def test_what_was_missed_before_an_apply_was_cut_off_is_walked(kept: Kept) -> None:
    with kept.running():
        pass
    kept.app.execute("DROP VIEW docs_embedded")
    kept.app.execute("DROP TRIGGER freshvec_docs_update ON docs")
    with open_transaction(kept, LONG), pytest.raises(LockedError):
        apply_to(kept)
    assert exists(kept.app, "docs_embedded")
    kept.app.execute("UPDATE docs SET body = 'unseen' WHERE id = 7")
    with kept.running() as worker:
        kept.comes_to_rest(worker)


def test_a_worker_names_who_is_in_the_way_and_keeps_its_other_syncs(kept: Kept) -> None:
    kept.app.execute("CREATE TABLE notes (id int PRIMARY KEY, body text)")
    kept.app.execute("INSERT INTO notes VALUES (1, 'one')")
    notes = kept.settings.model_validate(
        {**kept.settings.model_dump(), "sync": [kept.sync, sync_of("notes", "notes")]}
    )
    with open_transaction(kept, LONG) as session, running(notes, kept.encoder) as worker:
        trouble = "freshvec.sync WHERE name = 'docs' AND trouble LIKE '%reports (pid%is in the way%'"
        until("there is a sync", lambda: exists(kept.app, "notes_embedding"))
        until("status names it", lambda: count(kept.app, trouble) == 1)
        until("the other is fresh", lambda: count(kept.app, "notes_embedding") == 1)
        kept.app.execute("UPDATE notes SET body = 'two'")
        until("edits are followed", lambda: count(kept.app, "freshvec.queue_notes") == 0)
        session.commit()
        until("this one is fresh", lambda: worker.keepers[0].is_fresh)
        until("nothing is said any more", lambda: kept.status()["last_error"] is None)


def test_another_definition_needs_no_lock_of_the_table(kept: Kept) -> None:
    apply_to(kept)
    with open_transaction(kept, "LOCK TABLE docs IN SHARE ROW EXCLUSIVE MODE"):
        kept.sync = sync_of("docs", columns=["body", "views"])
        assert apply_to(kept)


def test_another_definition_waits_for_no_writer_of_the_queue(kept: Kept) -> None:
    apply_to(kept)
    with open_transaction(kept, LONG):
        kept.sync = sync_of("docs", columns=["body", "views"])
        assert apply_to(kept)


def test_a_plan_does_not_wait_for_a_table_that_is_altered(kept: Kept) -> None:
    apply_to(kept)
    with (
        open_transaction(kept, "LOCK TABLE docs") as session,
        connect(kept.settings.database.url, "test") as connection,
    ):
        with pytest.raises(LockedError, match="reports"):
            plan(connection, kept.settings.sync[0], NULL)
        assert not is_older_than(kept, session, 5.0)


def test_no_worker_makes_anew_what_is_being_removed(kept: Kept) -> None:
    apply_to(kept)
    with open_transaction(kept, "SELECT * FROM docs") as session, ThreadPoolExecutor() as pool:
        removing = pool.submit(remove_from, kept, 60.0)
        lock = f"pg_locks WHERE locktype = 'advisory' AND classid = {LOCK_CLASS} AND objid <> 0"
        until("it is being removed", lambda: count(kept.app, lock) == 1)
        with running(kept.settings, kept.encoder) as worker:
            until("a worker stands by", lambda: worker.keepers[0].stands_by)
            assert not worker.keepers[0].is_owner
            session.commit()
            assert removing.result(60)
            until("it makes it anew, as its file says", lambda: worker.keepers[0].is_fresh)


def test_remove_lets_readers_go_on_and_names_the_one_in_the_way(kept: Kept) -> None:
    apply_to(kept)
    with open_transaction(kept, "SELECT * FROM docs"):
        with pytest.raises(LockedError, match="reports"):
            remove_from(kept)
        kept.app.execute("SET statement_timeout = '5s'")
        kept.app.execute("SELECT * FROM docs")
        assert not apply_to(kept), "nothing is half removed"
    assert remove_from(kept)
    assert not has_triggers(kept)
    assert not remove_from(kept)


def test_a_search_that_is_open_keeps_the_target_and_the_rest_goes_later(kept: Kept) -> None:
    apply_to(kept)
    with open_transaction(kept, "SELECT * FROM docs_embedding"):
        with pytest.raises(LockedError, match=r"docs_embedding: reports"):
            remove_from(kept)
        assert not has_triggers(kept)
        assert apply_to(kept), "its triggers come back"
        assert has_triggers(kept)
    assert remove_from(kept)
    assert not exists(kept.app, "docs_embedding")


@ON_18
def test_locks_are_let_go_where_our_process_is_stalled(kept: Kept) -> None:
    with connect(kept.settings.database.url, "test") as connection:

        def stall() -> None:
            with held(connection, [("public", "docs")], "ACCESS EXCLUSIVE"):
                kept.app.execute("SET statement_timeout = '5s'")
                kept.app.execute("UPDATE docs SET body = 'goes on'")
                connection.execute("SELECT")

        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
            stall()
