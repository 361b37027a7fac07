"""One outside effect broken at a time: the error is said once, the work recovers, nothing is lost."""

from typing import Any

import psycopg
import pytest

from freshvec.capture import queue
from freshvec.source.rows import RowReader
from freshvec.target.upsert import TargetWriter
from freshvec.worker import failures
from tests.staleness import stale
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

FRESH = """
SELECT bool_and(t.content_hash IS NOT DISTINCT FROM d.hash)
  FROM (SELECT id, substring(sha256(convert_to(body, 'UTF8')) FROM 1 FOR 16) AS hash FROM docs) AS d
  FULL JOIN docs_embedding AS t USING (id)
"""


def is_fresh(docs: Connection) -> bool:
    return docs.execute(FRESH).fetchone() == (True,)


def failing(real: Any, error: Exception, times: int) -> Any:
    """`real`, but the first calls raise."""
    left = [times]

    def call(*arguments: Any, **named: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise error
        return real(*arguments, **named)

    return call


DISK_FULL = psycopg.errors.DiskFull("could not extend file")
NOT_SERIALIZABLE = psycopg.errors.SerializationFailure("could not serialize")
# How often; a transaction that ends in a deadlock is tried five times before the pipeline ends.
EFFECTS = {
    "the disk is full at the write": (TargetWriter, "write", DISK_FULL, 3),
    "the queue cannot be emptied": (queue, "delete", NOT_SERIALIZABLE, 3),
    "a read fails": (RowReader, "read", psycopg.OperationalError("the connection is lost"), 3),
    "a deadlock": (TargetWriter, "write", psycopg.errors.DeadlockDetected("deadlock detected"), 8),
    "something nobody thought of": (NullEncoder, "tokenize", ZeroDivisionError("surprise"), 3),
}


@pytest.mark.parametrize(("owner", "name", "error", "times"), EFFECTS.values(), ids=EFFECTS.keys())
def test_it_recovers(
    url: str,
    docs: Connection,
    monkeypatch: pytest.MonkeyPatch,
    log: list[str],
    owner: Any,
    name: str,
    error: Exception,
    times: int,
) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 50) g")
    encoder = NullEncoder()
    with running(settings_for(url, sync_of("docs")), encoder) as worker:
        wait_fresh(worker)
        monkeypatch.setattr(failures, "RECOVERED_SECONDS", 0.5)
        monkeypatch.setattr(owner, name, failing(getattr(owner, name), error, times))
        docs.execute("UPDATE docs SET body = body || ' edited'")
        docs.execute("INSERT INTO docs VALUES (100, 'new')")
        until("everything is fresh", lambda: is_fresh(docs))
        until("the recovery is said", lambda: any("recovered after" in line for line in log))
    errors = [line for line in log if line.startswith("ERROR")]
    assert len(errors) == 1, "the same error is logged once"
    assert str(error) in errors[0]
    assert stale(docs, encoder) == []


def test_a_broken_encoder_is_waited_for(
    url: str, docs: Connection, monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 50) g")
    encoder = NullEncoder()
    with running(settings_for(url, sync_of("docs")), encoder) as worker:
        wait_fresh(worker)
        monkeypatch.setattr(failures, "RECOVERED_SECONDS", 0.5)
        error = RuntimeError("the device fell off the bus")
        monkeypatch.setattr(encoder, "encode", failing(encoder.encode, error, 500))
        docs.execute("UPDATE docs SET body = body || ' edited'")
        until("everything is fresh", lambda: is_fresh(docs))
        until("the recovery is said", lambda: any("recovered after" in line for line in log))
    assert count(docs, "docs_embedding WHERE encode_error IS NOT NULL") == 0
    assert sum("fell off the bus" in line for line in log) == 1
    assert sum("recovered after" in line for line in log) == 1
    assert stale(docs, encoder) == []


def test_a_dropped_target_is_said_and_made_again_by_apply(url: str, docs: Connection, log: list[str]) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 50) g")
    settings = settings_for(url, sync_of("docs"))
    encoder = NullEncoder()
    with running(settings, encoder) as worker:
        wait_fresh(worker)
        docs.execute("DROP TABLE docs_embedding CASCADE")
        docs.execute("UPDATE docs SET body = 'edited' WHERE id = 1")
        until("it is made again", lambda: exists(docs, "docs_embedding"))
        until("everything is fresh", lambda: is_fresh(docs))
    (error,) = (line for line in log if line.startswith("ERROR"))
    assert "docs_embedding" in error
    assert count(docs, "docs_embedded") == 50, "its view is back as well"
    assert stale(docs, encoder) == []
