"""A sync whose model cannot be loaded is left out while others go on, and tried again."""

import pytest

from freshvec.errors import DeviceError
from freshvec.worker import keepers
from tests.support import (
    Connection,
    NullEncoder,
    count,
    exists,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
)

OTHER = "bge-small-en-v1.5"


def test_a_model_that_found_no_room_is_tried_again(docs: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU whose memory the process before still held."""
    monkeypatch.setattr(keepers, "FIRST_SECONDS", 0.2)
    docs.execute("INSERT INTO docs VALUES (1, 'a text')")
    docs.execute("CREATE TABLE notes AS TABLE docs")
    docs.execute("ALTER TABLE notes ADD PRIMARY KEY (id)")
    attempts: list[str] = []

    def load(name: str) -> NullEncoder:
        attempts.append(name)
        if name == OTHER and attempts.count(OTHER) < 3:
            raise DeviceError("load", f"model {name!r}", "no room", "Wait.")
        return NullEncoder()

    syncs = (sync_of("docs"), {**sync_of("notes", "notes"), "model": OTHER})
    with running(settings_for(docs.info.dsn, *syncs, sweep_seconds=0.2), load) as worker:
        until("the other one goes on", lambda: exists(docs, "docs_embedding"))
        until("it is tried again", lambda: len(worker.keepers) == 2)
        wait_fresh(worker)
        assert worker.left_out == {}
        assert count(docs, "notes_embedding WHERE embedding IS NOT NULL") == 1
    assert attempts.count(OTHER) == 3
