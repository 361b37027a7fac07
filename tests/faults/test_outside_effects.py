"""One outside effect broken at a time: the error is said once, the work recovers, nothing is lost."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from loguru import logger

from freshvec.capture import queue
from freshvec.pipeline import reader
from freshvec.source.rows import RowReader
from freshvec.target.upsert import TargetWriter
from tests.acceptance.test_never_stale import stale
from tests.support import Connection, NullEncoder, serving, settings_for, sync_of, until, wait_fresh

FRESH = """
SELECT count(*) FILTER (WHERE t.content_hash = substring(sha256(convert_to(d.body, 'UTF8')) FROM 1 FOR 16)) = count(*)
  FROM docs d FULL JOIN docs_embedding t USING (id)
"""


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="INFO", format="{level} {message}")
    yield lines
    logger.remove(sink)


def failing(real: Any, error: Exception, times: int) -> Any:
    """`real`, but the first calls raise."""
    left = [times]

    def call(*arguments: Any, **named: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise error
        return real(*arguments, **named)

    return call


EFFECTS = {
    "the disk is full at the write": (
        TargetWriter,
        "write",
        psycopg.errors.DiskFull("could not extend file"),
    ),
    "the queue cannot be emptied": (
        queue,
        "delete",
        psycopg.errors.SerializationFailure("could not serialize"),
    ),
    "a read fails": (RowReader, "read", psycopg.OperationalError("the connection is lost")),
    "a deadlock": (TargetWriter, "write", psycopg.errors.DeadlockDetected("deadlock detected")),
    "something nobody thought of": (reader.Reader, "_handle", ZeroDivisionError("surprise")),
}


@pytest.mark.parametrize(("owner", "name", "error"), EFFECTS.values(), ids=EFFECTS.keys())
def test_it_recovers(
    url: str,
    docs: Connection,
    monkeypatch: pytest.MonkeyPatch,
    log: list[str],
    owner: Any,
    name: str,
    error: Exception,
) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 50) g")
    encoder = NullEncoder()
    with serving(settings_for(url, sync_of("docs")), encoder) as service:
        wait_fresh(service)
        monkeypatch.setattr(owner, name, failing(getattr(owner, name), error, 3))
        docs.execute("UPDATE docs SET body = body || ' edited'")
        docs.execute("INSERT INTO docs VALUES (100, 'new')")
        until("everything is fresh", lambda: docs.execute(FRESH).fetchone() == (True,), 60)
        until("the recovery is said", lambda: any("recovered after" in line for line in log), 30)
    said = [line for line in log if line.startswith("ERROR")]
    assert len(said) == 1, "the same error is logged once"
    assert str(error) in said[0]
    assert stale(docs, lambda texts: encoder.encode(encoder.tokenize(texts))) == []


def test_a_broken_encoder_is_waited_for(
    url: str, docs: Connection, monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 50) g")
    encoder = NullEncoder()
    with serving(settings_for(url, sync_of("docs")), encoder) as service:
        wait_fresh(service)
        monkeypatch.setattr(
            encoder, "encode", failing(encoder.encode, RuntimeError("the device fell off the bus"), 500)
        )
        docs.execute("UPDATE docs SET body = body || ' edited'")
        until("everything is fresh", lambda: docs.execute(FRESH).fetchone() == (True,), 60)
        until("the recovery is said", lambda: any("recovered after" in line for line in log), 30)
    assert docs.execute("SELECT count(*) FROM docs_embedding WHERE encode_error IS NOT NULL").fetchone() == (
        0,
    )
    assert sum("fell off the bus" in line for line in log) == 1
    assert sum("recovered after" in line for line in log) == 1
    assert stale(docs, lambda texts: encoder.encode(encoder.tokenize(texts))) == []


def test_a_dropped_target_is_said_and_made_again_by_apply(url: str, docs: Connection, log: list[str]) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 50) g")
    settings = settings_for(url, sync_of("docs"))
    encoder = NullEncoder()
    with serving(settings, encoder) as service:
        wait_fresh(service)
        docs.execute("DROP TABLE docs_embedding CASCADE")
        docs.execute("UPDATE docs SET body = 'edited' WHERE id = 1")
        until(
            "it is made again",
            lambda: docs.execute("SELECT to_regclass('docs_embedding')").fetchone() != (None,),
            60,
        )
        until("everything is fresh", lambda: docs.execute(FRESH).fetchone() == (True,), 60)
    (said,) = (line for line in log if line.startswith("ERROR"))
    assert "docs_embedding" in said
    assert docs.execute("SELECT count(*) FROM docs_embedded").fetchone() == (50,), "its view is back as well"
    assert stale(docs, lambda texts: encoder.encode(encoder.tokenize(texts))) == []
