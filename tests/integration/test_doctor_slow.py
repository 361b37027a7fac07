"""`freshvec doctor` on a server with trouble of its own: slow commits, vectors that do not fit into memory,
notifications that nobody reads, checkpoints that come too often.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from freshvec.config import Settings
from freshvec.db import connect
from freshvec.doctor import load, server
from freshvec.embedded import EmbeddedPostgres
from tests.conftest import QUICK
from tests.integration.doctor_checks import FAULT, OK, WARNING, looked, worst
from tests.support import Connection, settings_for, sync_of, until


@pytest.fixture(scope="module")
def small() -> Iterator[EmbeddedPostgres]:
    """A server with little memory and a short queue of notifications, that waits for its disk."""
    options: dict[str, Any] = {"shared_buffers": "1MB", "max_notify_queue_pages": "64", "autovacuum": "off"}
    with EmbeddedPostgres(18, within=QUICK["within"], **options) as made:
        yield made


@pytest.fixture
def settings(small: EmbeddedPostgres) -> Settings:
    return settings_for(small.url(), sync_of("docs"))


@pytest.fixture
def app(small: EmbeddedPostgres) -> Iterator[Connection]:
    with psycopg.connect(small.url(), autocommit=True) as connection:
        yield connection


def test_commits_that_are_slow_are_found(settings: Settings, app: Connection) -> None:
    assert worst(looked(load.speed, settings)).severity is OK
    app.execute("ALTER DATABASE postgres SET commit_delay = 100000")  # microseconds
    app.execute("ALTER DATABASE postgres SET commit_siblings = 0")
    try:
        (found,) = looked(load.speed, settings)
    finally:
        app.execute("ALTER DATABASE postgres RESET commit_delay")
        app.execute("ALTER DATABASE postgres RESET commit_siblings")
    assert found.severity is WARNING
    assert "the database is slow to write: a commit takes 1" in found.what
    assert "faster disk" in found.remedy


def test_vectors_that_do_not_fit_into_memory_are_found(
    settings: Settings, app: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "MISSED", 1000)
    app.execute("CREATE TABLE docs_embedding (id bigint PRIMARY KEY, embedding real[])")
    assert worst(looked(load.transactions, settings)).severity is OK
    vector = "array_fill(0.5::real, ARRAY[384])"
    app.execute(f"INSERT INTO docs_embedding SELECT g, {vector} FROM generate_series(1, 4000) g")

    def is_found() -> bool:
        app.execute("SELECT sum(embedding[1]) FROM docs_embedding")
        app.execute("SELECT pg_stat_force_next_flush()")
        return worst(looked(load.transactions, settings)).severity is WARNING

    try:
        until("what was read from the disk is counted", is_found)
        found = worst(looked(load.transactions, settings))
        assert "of what is read of vectors and their indexes is in shared_buffers" in found.what
        assert "shared_buffers" in found.remedy
    finally:
        app.execute("DROP TABLE docs_embedding")


@contextmanager
def unread(url: str) -> Iterator[Connection]:
    """A session that listens and does not read, since its transaction is open."""
    with psycopg.connect(url, application_name="deaf") as session:
        session.execute("LISTEN anything")
        session.commit()
        session.execute("SELECT 1")
        yield session


def test_notifications_that_nobody_reads_are_found(
    settings: Settings, app: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "UNREAD_SECONDS", 0)
    assert worst(looked(server.notifications, settings)).severity is OK
    fill = "SELECT pg_notify('anything', g || repeat('x', 7000)) FROM generate_series(1, %s) g"
    with unread(settings.database.url.get_secret_value()) as deaf:
        app.execute(fill, (15,))
        found = worst(looked(server.notifications, settings))
        assert (found.severity, "their queue is " in found.what) == (WARNING, True)
        app.execute(fill, (25,))
        found = worst(looked(server.notifications, settings))
        assert found.severity is FAULT
        assert "over half of it nobody is rung" in found.why
        assert f"that of pid {deaf.info.backend_pid} (deaf)" in found.remedy
        deaf.rollback()
        app.execute(fill, (1,))  # who notifies lets go of what is read
        until("it is read", lambda: worst(looked(server.notifications, settings)).severity is OK)


@pytest.mark.parametrize(("version", "statistics"), [("url", "checkpointer"), ("url16", "bgwriter")])
def test_checkpoints_that_come_too_often_are_found(
    request: pytest.FixtureRequest, version: str, statistics: str
) -> None:
    settings = settings_for(request.getfixturevalue(version), sync_of("docs"))

    def too_often() -> list[str]:
        return [found.what for found in looked(server.log, settings) if "checkpoints came" in found.what]

    with connect(settings.database.url, "test") as connection:
        connection.execute(f"SELECT pg_stat_reset_shared('{statistics}')".encode())
        until("the statistics begin anew", lambda: not too_often())
        for number in range(30):
            connection.execute(f"SELECT pg_logical_emit_message(false, 'test', '{number}')".encode())
            connection.execute("CHECKPOINT")
        until("it is found", too_often)
        (what,) = too_often()
        assert "max_wal_size is 128MB" in what
        connection.execute(f"SELECT pg_stat_reset_shared('{statistics}')".encode())
