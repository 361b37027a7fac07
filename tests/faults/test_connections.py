"""Connections cut and the server restarted while edits go on: nothing stale afterwards."""

import itertools
import threading
from typing import Any, Self

import psycopg
import pytest
from pydantic import SecretStr

from freshvec import db
from freshvec.backoff import Backoff
from freshvec.capture import bell
from freshvec.embedded import EmbeddedPostgres
from freshvec.schema.migrations import migrate
from freshvec.worker import ownership
from freshvec.worker.worker import Worker
from tests.staleness import stale
from tests.support import Connection, NullEncoder, exists, running, settings_for, sync_of, until, wait_fresh

STALE = """
SELECT count(*) FROM docs d FULL JOIN docs_embedding t USING (id)
 WHERE t.content_hash IS DISTINCT FROM substring(sha256(convert_to(d.body, 'UTF8')) FROM 1 FOR 16)
"""


class Application:
    """Edits that go on whatever happens to the connection."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._edit)
        self.edits = 0

    def _edit(self) -> None:
        while not self._stopping.is_set():
            try:
                with psycopg.connect(self._url, autocommit=True) as connection:
                    while not self._stopping.wait(0.002):
                        edit = f"edit {self.edits}", self.edits % 100
                        connection.execute("UPDATE docs SET body = %s WHERE id = %s", edit)
                        self.edits += 1
            except psycopg.Error:
                continue

    def until_more(self, edits: int) -> None:
        wanted = self.edits + edits
        until("edits go on", lambda: self.edits >= wanted)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stopping.set()
        self._thread.join()


def settle(url: str, worker: Worker, encoder: NullEncoder) -> None:
    """Every hash becomes that of its row's text, and every vector is as well that of its row's text."""

    def is_current() -> bool:
        assert any(thread.name == "worker" for thread in threading.enumerate()), "the worker has ended"
        with psycopg.connect(url) as connection:
            return connection.execute(STALE).fetchone() == (0,)

    until("nothing is stale", is_current)
    wait_fresh(worker)
    with psycopg.connect(url) as connection:
        assert stale(connection, encoder) == []


CUT = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
 WHERE application_name LIKE %s AND datname = current_database()
"""


def cut(docs: Connection, who: str) -> int:
    """End the worker's connections of that kind; how many there were."""
    (ended,) = docs.execute(CUT, (f"freshvec {who}%",)).fetchone() or (0,)
    return int(ended)


@pytest.mark.parametrize("who", ["worker", "listener", "%"])
def test_cut_connections_leave_nothing_stale(url: str, docs: Connection, who: str) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(0, 99) g")
    encoder = NullEncoder()
    with running(settings_for(url, sync_of("docs")), encoder) as worker:
        wait_fresh(worker)
        with Application(url) as application:
            for _ in range(3):
                until("it has connections", lambda: cut(docs, who))
                application.until_more(100)
        settle(url, worker, encoder)


@pytest.mark.parametrize("who", ["worker", "%"])
def test_connections_cut_as_soon_as_they_are_made_do_not_end_the_worker(
    url: str, docs: Connection, who: str
) -> None:
    """A pipeline that fails while it is being made counts as failed, and no more than that."""
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(0, 99) g")
    encoder = NullEncoder()
    with running(settings_for(url, sync_of("docs")), encoder) as worker:
        wait_fresh(worker)
        first = worker.keepers[0].pipeline
        with Application(url) as application:
            made = 0
            while made < 5 or application.edits < 300:
                made += cut(docs, who)
        until("another pipeline runs", lambda: worker.keepers[0].pipeline not in (None, first))
        settle(url, worker, encoder)


def test_the_listener_may_be_cut_before_any_of_its_statements(
    url: str, docs: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first connection is cut before the first statement, its second before the second, and so on, until
    one lives to see everything fresh: no statement of the main loop may end the worker."""
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(0, 9) g")
    encoder, settings = NullEncoder(), settings_for(url, sync_of("docs"))
    with db.connect(settings.database.url, "test") as connection:
        migrate(connection)  # so that each life begins with the same statements
    lives = 0

    def connect_for_a_while(given: SecretStr, purpose: str) -> db.Connection:
        nonlocal lives
        lives += 1
        connection, left = db.connect(given, purpose), itertools.count(lives, -1)
        execute = connection.execute

        def execute_or_end(*arguments: Any, **more: Any) -> Any:
            if next(left) == 1:
                docs.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
            return execute(*arguments, **more)

        connection.execute = execute_or_end  # type: ignore[method-assign]
        return connection

    monkeypatch.setattr(bell, "connect", connect_for_a_while)
    monkeypatch.setattr(Backoff, "next_delay", lambda self: 0.01)
    with running(settings, encoder) as worker:
        until("it lives", lambda: lives > 5 and worker.keepers[0].pipeline is not None)
        settle(url, worker, encoder)
        assert lives > 20, lives
        docs.execute("INSERT INTO docs VALUES (10, 'text 10')")
        settle(url, worker, encoder)


def test_a_listener_that_is_cut_while_a_file_is_taken_up_loses_none_of_it(
    url: str, docs: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs.execute("CREATE TABLE notes (id bigint PRIMARY KEY, body text)")
    before = settings_for(url, sync_of("docs"))
    after = settings_for(url, sync_of("notes", "notes"))
    disown, cuts = ownership.disown, itertools.count()

    def cut_first(connection: db.Connection, name: str) -> None:
        if not next(cuts):
            docs.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        disown(connection, name)

    monkeypatch.setattr(ownership, "disown", cut_first)
    encoder = NullEncoder()
    worker = Worker(before, before.sync, load=lambda _: encoder, reload=lambda: (after, after.sync))
    thread = threading.Thread(target=worker.run, name="worker")
    thread.start()
    try:
        wait_fresh(worker)
        worker.reload()
        until("the other sync is kept", lambda: exists(docs, "notes_embedding"))
        assert [keeper.sync.name for keeper in worker.keepers] == ["notes"]
    finally:
        worker.stop()
        thread.join(60)


def test_a_crashed_server_leaves_nothing_stale() -> None:
    with EmbeddedPostgres(18, fsync="off") as server:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
            connection.execute("CREATE TABLE docs (id bigint PRIMARY KEY, body text)")
            connection.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(0, 99) g")
        encoder = NullEncoder()
        with running(settings_for(server.url(), sync_of("docs")), encoder) as worker:
            wait_fresh(worker)
            before = worker.keepers[0].pipeline
            with Application(server.url()) as application:
                application.until_more(50)
                server.run("pg_ctl", "-D", str(server.data), "-m", "immediate", "-w", "stop")
                until("the worker notices", lambda: worker.keepers[0].pipeline is not before)
                server.start()
                until("the worker is back", lambda: worker.keepers[0].pipeline is not None)
                application.until_more(50)
            settle(server.url(), worker, encoder)
