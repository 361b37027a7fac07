"""Whoever watches shares one reading of the status, now and then."""

import threading
from typing import Any

import pytest

from freshvec.config import Settings
from freshvec.db import Connection as Ours
from freshvec.health import status
from freshvec.health.watch import StatusWatch
from tests.support import Connection, NullEncoder, backfill, settings_for, sync_of, until


@pytest.fixture
def settings(url: str, docs: Connection) -> Settings:
    docs.execute("INSERT INTO docs VALUES (1, 'one'), (2, 'two'), (3, 'cursed')")
    settings = settings_for(url, sync_of("docs"))
    backfill(settings, NullEncoder(refuse="cursed"))
    return settings


def test_however_many_ask_it_is_read_once_in_a_while(
    settings: Settings, docs: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = []
    read = status.read

    def counted(connection: Ours) -> list[dict[str, Any]]:
        readings.append(connection)
        return read(connection)

    monkeypatch.setattr("freshvec.health.status.read", counted)
    watch = StatusWatch(settings.database.url, with_failures=False)
    threads = [threading.Thread(target=watch.latest) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(readings) == 1
    assert watch.latest().syncs["docs"]["rows_fresh"] == 2
    docs.execute("UPDATE docs SET body = 'another' WHERE id = 1")
    until("it is read again", lambda: watch.latest().syncs["docs"]["backlog"] > 0)
    assert readings[0] is readings[-1], "on one session"


def test_rows_that_failed_are_read_where_they_may_be_shown(settings: Settings) -> None:
    seen = StatusWatch(settings.database.url, with_failures=True).latest()
    assert [row["key"] for row in seen.failures["docs"]] == [{"id": 3}]
    assert StatusWatch(settings.database.url, with_failures=False).latest().failures == {}


def test_a_session_that_was_cut_is_opened_again(settings: Settings, docs: Connection) -> None:
    watch = StatusWatch(settings.database.url, with_failures=False)
    assert watch.latest().error is None
    ours = "pg_stat_activity WHERE application_name = 'freshvec watch'"
    docs.execute(f"SELECT pg_terminate_backend(pid) FROM {ours}")
    until("the loss is said", lambda: watch.latest().error)
    assert watch.latest().syncs["docs"], "with what was seen last"
    until("it is read again", lambda: watch.latest().error is None)


def test_nothing_was_applied_yet(url: str, docs: Connection) -> None:
    seen = StatusWatch(settings_for(url, sync_of("docs")).database.url, with_failures=True).latest()
    assert (seen.syncs, seen.error) == ({}, None)
