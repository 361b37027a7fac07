"""Connections cut and the server restarted while edits go on: nothing stale afterwards."""

import threading
import time

import psycopg
import pytest

from embedsync.embedded import EmbeddedPostgres
from tests.support import Connection, NullEncoder, serving, settings_for, sync_of, until, wait_fresh

STALE = """
SELECT count(*) FROM docs d FULL JOIN docs_embedding t USING (id)
 WHERE t.content_hash IS DISTINCT FROM substring(sha256(convert_to(d.body, 'UTF8')) FROM 1 FOR 16)
"""


def edit(url: str, stopping: threading.Event) -> None:
    """Edits that go on whatever happens to the connection."""
    number = 0
    while not stopping.is_set():
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                while not stopping.wait(0.002):
                    number += 1
                    connection.execute("UPDATE docs SET body = %s WHERE id = %s", (f"edit {number}", number % 100))
        except psycopg.Error:
            continue


def none_stale(url: str) -> bool:
    with psycopg.connect(url) as connection:
        return connection.execute(STALE).fetchone() == (0,)


@pytest.mark.parametrize("who", ["reader", "writer", "listener", "%"])
def test_cut_connections_leave_nothing_stale(url: str, docs: Connection, who: str) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(0, 99) g")
    stopping = threading.Event()
    thread = threading.Thread(target=edit, args=(url, stopping))
    with serving(settings_for(url, sync_of("docs")), NullEncoder()) as service:
        wait_fresh(service)
        thread.start()
        cut = """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                  WHERE application_name LIKE %s AND datname = current_database()"""
        for _ in range(3):
            until("it has connections", lambda: docs.execute(cut, (f"embedsync {who}%",)).fetchone() != (0,))
            resume = time.monotonic() + 0.3
            while time.monotonic() < resume:  # edits go on for a moment
                stopping.wait(0.05)
        stopping.set()
        thread.join()
        until("nothing is stale", lambda: docs.execute(STALE).fetchone() == (0,), 60)


@pytest.mark.timeout(120)
def test_a_crashed_server_leaves_nothing_stale() -> None:
    with EmbeddedPostgres(18) as server:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
            connection.execute("CREATE TABLE docs (id bigint PRIMARY KEY, body text)")
            connection.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(0, 99) g")
        stopping = threading.Event()
        thread = threading.Thread(target=edit, args=(server.url(), stopping))
        with serving(settings_for(server.url(), sync_of("docs")), NullEncoder()) as service:
            wait_fresh(service)
            thread.start()
            server.run("pg_ctl", "-D", str(server.data), "-m", "immediate", "-w", "stop")
            server.start()
            until("the worker is back", lambda: service.keepers[0].pipeline is not None, 60)
            stopping.set()
            thread.join()
            until("nothing is stale", lambda: none_stale(server.url()), 60)
