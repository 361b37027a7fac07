"""A worker with few rights, while the table's owner applies: it heals what it may, says what it may not, and
walks."""

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from freshvec.config import Settings
from freshvec.db import connect
from freshvec.errors import DatabaseError
from freshvec.health import status
from freshvec.records import Model
from freshvec.schema import migrations
from freshvec.schema.apply import apply, carry_out, kept_column
from freshvec.source.bound import BoundSync
from freshvec.worker import binding
from freshvec.worker.worker import Worker
from tests.integration.at_rest import Kept
from tests.support import MODEL, NullEncoder, count, running, sync_of, until, wait_fresh

NULL = Model(MODEL, 8, 256, NullEncoder.fingerprint)


class Few(Kept):
    """The owner applies; the worker connects as a role that may read the source and write what is ours."""

    def apply(self) -> None:
        with connect(self.settings.database.url, "apply") as connection:
            migrations.migrate(connection)
            apply(connection, self.settings.sync[0], NULL, "few")

    @property
    def restricted(self) -> Settings:
        database = {"url": self.url.replace("postgres:@", "few@"), "worker_role": "few"}
        given = {**self.settings.model_dump(exclude={"database"}), "database": database}
        return Settings.model_validate(given)


@pytest.fixture
def few(kept: Kept) -> Iterator[Few]:
    role = Few(kept.url, kept.app)
    role.app.execute("DROP ROLE IF EXISTS few")
    role.app.execute("CREATE ROLE few LOGIN")
    role.apply()
    yield role
    role.app.execute("DROP OWNED BY few")
    role.app.execute("DROP ROLE few")


# Rows may be wrong behind the triggers' back, and the worker may not mend the triggers.
LOST = {
    "trigger disabled": """ALTER TABLE docs DISABLE TRIGGER freshvec_docs_update;
        UPDATE docs SET body = 'unseen' WHERE id = 7""",
    "trigger dropped": """DROP TRIGGER freshvec_docs_insert ON docs;
                           INSERT INTO docs VALUES (700, 'unseen')""",
    "load without triggers": """ALTER TABLE docs DISABLE TRIGGER ALL;
        UPDATE docs SET body = 'loaded over' WHERE id = 7; DELETE FROM docs WHERE id = 8;
        ALTER TABLE docs ENABLE TRIGGER ALL""",
    "swapped by rename": """CREATE TABLE docs_new (LIKE docs INCLUDING ALL); GRANT SELECT ON docs_new TO few;
        INSERT INTO docs_new SELECT id, body || ' copied', views FROM docs WHERE id > 10;
        BEGIN; ALTER TABLE docs RENAME TO docs_old; ALTER TABLE docs_new RENAME TO docs; COMMIT""",
}
# Nothing is lacking afterwards, so the worker's rights suffice.
HEALED = {
    "column rewritten": "ALTER TABLE docs ALTER body TYPE text USING upper(body)",
    "target truncated": "TRUNCATE docs_embedding",
    "queue truncated": "TRUNCATE freshvec.queue_docs",
}


def says_who_can(few: Few) -> bool:
    said = str(few.status()["last_error"])
    return "freshvec apply docs" in said and "as the owner of docs" in said


def walks(few: Few, worker: Worker) -> bool:
    worker.sweep()
    pipeline = worker.keepers[0].pipeline
    return pipeline is not None and pipeline.is_walking


def walked(few: Few, worker: Worker) -> bool:
    worker.sweep()
    return not few.wrong() and few.verify().is_fresh


@pytest.mark.parametrize("event", LOST.values(), ids=LOST.keys())
def test_what_it_may_not_mend_is_said_and_found_by_walks(few: Few, event: str) -> None:
    with running(few.restricted, NullEncoder()) as worker:
        wait_fresh(worker)
        few.daemon = {"sweep_seconds": 0.2}
        few.app.execute(event.encode())
        worker.sweep()
        until("status says who can mend it", lambda: says_who_can(few))
        until("a walk has found the changes", lambda: not few.wrong())
    with running(few.restricted, NullEncoder()) as worker:
        for number in range(2):
            few.edit(f"edited {number}")
            until("walks find what the triggers miss", lambda: walked(few, worker))
        assert says_who_can(few)
        assert not status.is_fresh(few.status()), "what only walks find may be stale at any moment"
        few.apply()
        worker.sweep()
        until("nothing is said any more", lambda: few.status()["last_error"] is None)
        few.comes_to_rest()


def test_a_walk_that_it_did_not_ask_for_is_followed_by_others(few: Few) -> None:
    """As one that was under way when the last worker was stopped, and one that somebody asks for later."""
    few.daemon = {"sweep_seconds": 0.2}
    few.app.execute("DROP TRIGGER freshvec_docs_insert ON docs; INSERT INTO docs VALUES (700, 'unseen')")
    few.app.execute("UPDATE freshvec.sync SET backfill_done = false")
    with running(few.restricted, NullEncoder(seconds_a_batch=0.3)) as worker:
        until("it is seen", lambda: walks(few, worker))
        until("it has found the change", lambda: walked(few, worker))
        for number in range(701, 703):
            few.app.execute("INSERT INTO docs VALUES (%s, 'unseen')", (number,))
            few.app.execute("INSERT INTO freshvec.rescan (sync, reason) VALUES ('docs', 'a test')")
            until("another is seen", lambda: walks(few, worker))
            until("that has found the change", lambda: walked(few, worker))
        few.app.execute("INSERT INTO docs VALUES (800, 'unseen')")
        until("one that nobody asked for follows", lambda: walked(few, worker))


def test_rights_that_are_given_later_are_used(few: Few) -> None:
    with running(few.restricted, NullEncoder()) as worker:
        wait_fresh(worker)
        few.app.execute("DROP TRIGGER freshvec_docs_insert ON docs; INSERT INTO docs VALUES (700, 'unseen')")
        worker.sweep()
        until("status says who can mend it", lambda: says_who_can(few))
        few.app.execute("GRANT postgres TO few")
        worker.sweep()
        until("nothing is said any more", lambda: few.status()["last_error"] is None)
        few.comes_to_rest()


@pytest.mark.parametrize("turn", [1, 2])
def test_rights_that_are_given_amid_a_binding_are_used(
    few: Few, monkeypatch: pytest.MonkeyPatch, turn: int
) -> None:
    """Just after it was tried without them, or after it was done as far as that goes."""
    turns, are_given = itertools.count(1), threading.Event()

    def then_given(*given: Any, **more: Any) -> BoundSync:
        try:
            return carry_out(*given, **more)
        finally:
            if next(turns) == turn:
                few.app.execute("GRANT postgres TO few")
                are_given.set()

    with running(few.restricted, NullEncoder()) as worker:
        wait_fresh(worker)
        monkeypatch.setattr(binding, "carry_out", then_given)
        few.app.execute("DROP TRIGGER freshvec_docs_insert ON docs; INSERT INTO docs VALUES (700, 'unseen')")
        worker.sweep()
        until("they are given", are_given.is_set)
        few.comes_to_rest(worker)
        assert few.status()["last_error"] is None


# After each of these the view is made anew.
RENEWED = {
    "key widened": "ALTER TABLE docs ALTER id TYPE bigint",
    "target dropped": "DROP TABLE docs_embedding CASCADE",
    "view dropped": "DROP VIEW docs_embedded",
    "key renamed": "ALTER TABLE docs RENAME id TO number",
}


@pytest.mark.parametrize("event", RENEWED.values(), ids=RENEWED.keys())
def test_a_view_that_is_made_anew_shows_to_whom_the_table_shows(few: Few, event: str) -> None:
    few.app.execute("DROP ROLE IF EXISTS reader; CREATE ROLE reader; GRANT SELECT ON docs TO reader")
    few.apply()
    few.app.execute(event.encode())
    few.apply()
    for role in ("reader", "few"):
        for name in ("docs_embedding", "docs_embedded"):
            may = few.app.execute("SELECT has_table_privilege(%s, %s, 'SELECT')", (role, name)).fetchone()
            assert may == (True,), (role, name)
    few.app.execute("DROP OWNED BY reader; DROP ROLE reader")


@pytest.mark.parametrize("event", HEALED.values(), ids=HEALED.keys())
def test_what_its_rights_allow_is_healed(few: Few, event: str) -> None:
    with running(few.restricted, NullEncoder()) as worker:
        wait_fresh(worker)
        few.app.execute(event.encode())
        few.comes_to_rest(worker)


NEEDS_OBJECTS = {
    "target dropped": "DROP TABLE docs_embedding",
    "queue dropped": "DROP TABLE freshvec.queue_docs",
    "key widened": "ALTER TABLE docs ALTER id TYPE bigint",
}


@pytest.mark.parametrize("event", NEEDS_OBJECTS.values(), ids=NEEDS_OBJECTS.keys())
def test_without_its_objects_it_waits_for_the_owner_and_says_so(few: Few, event: str) -> None:
    with running(few.restricted, NullEncoder()) as worker:
        wait_fresh(worker)
        few.app.execute(event.encode())
        few.app.execute("UPDATE docs SET body = 'meanwhile' WHERE id = 7")
        worker.sweep()
        until("status says who can mend it", lambda: says_who_can(few))
        assert not status.is_fresh(few.status())
        few.apply()
        few.comes_to_rest(worker)
        for relation in ("docs_embedding", "docs_embedded"):
            granted = few.app.execute("SELECT has_table_privilege('few', %s, 'SELECT')", (relation,))
            assert granted.fetchone() == (True,), f"what is made anew is granted anew: {relation}"


def test_a_queue_that_was_full_is_made_small_again(few: Few) -> None:
    few.sync = sync_of("docs", queue_bytes=2**16)
    few.apply()
    while not count(few.app, "freshvec.rescan"):
        few.app.execute("UPDATE docs SET body = body || '.' WHERE id <= 60")
    with running(few.restricted, NullEncoder()) as worker:
        wait_fresh(worker)
        assert few.status()["last_error"] is None
        few.app.execute("UPDATE docs SET body = 'noted' WHERE id = 7")
        size = few.app.execute("SELECT pg_relation_size('freshvec.queue_docs')").fetchone()
        assert size == (8192,)


def test_who_may_not_even_look_is_told_what_it_lacks(few: Few) -> None:
    few.app.execute("REVOKE SELECT ON freshvec.sync FROM few")
    with (
        connect(few.restricted.database.url, "test") as connection,
        pytest.raises(DatabaseError, match="cannot look up sync 'docs': permission denied for table sync"),
    ):
        kept_column(connection, "docs")
