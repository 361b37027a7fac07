"""Keys that are equal and print differently: equality is Postgres's, never that of texts."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import psycopg
import pytest

from freshvec.config import Settings
from freshvec.db import connect
from freshvec.pipeline.epoch import take
from freshvec.records import Fate, Outcome
from freshvec.scans.verify import verify
from freshvec.target.upsert import TargetWriter
from tests.support import (
    REPOSITORY,
    Connection,
    NullEncoder,
    backfill,
    bound_sync,
    content_hash,
    count,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
)

# How a key is declared, and two spellings of one key.
SPELLINGS = {
    "numeric": ("numeric", "1.0", "1.00"),
    "domain": ("amount", "1.0", "1.00"),
    "interval": ("interval", "1 day", "24:00:00"),
    "float8": ("float8", "-0", "0"),
    "float4": ("float4", "-0", "0"),
    "bpchar": ("bpchar", "a", "a   "),
    "jsonb": ("jsonb", '{"a": 1.0}', '{"a": 1.00}'),
    "array": ("numeric[]", "{1.0,2}", "{1.00,2.0}"),
    "range": ("numrange", "[1.0,2)", "[1.00,2.0)"),
    "multirange": ("nummultirange", "{[1.0,2)}", "{[1.00,2.0)}"),
    "composite type": ("pair", "(1.0,a)", "(1.00,a)"),
    "timestamptz": ("timestamptz", "2026-01-01 00:00+00", "2026-01-01 05:30+05:30"),
}
SPELLINGS_15 = {
    "citext": ("citext", "Hello", "HELLO"),
    "nondeterministic": ("text COLLATE nocase", "Hello", "hELLO"),
}
REAL = {"type": "real[]"}
OF_15 = """
CREATE SCHEMA extensions; CREATE EXTENSION citext SCHEMA extensions; CREATE EXTENSION ltree SCHEMA extensions;
CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
"""


def has_hash(application: Connection, text: str) -> bool:
    """Whether the only row of the target is that of this text."""
    found = application.execute("SELECT content_hash FROM docs_embedding").fetchall()
    return found == [(content_hash(text),)]


@pytest.fixture(
    params=[(v, kind) for v in ("18", "16") for kind in SPELLINGS] + [("15", kind) for kind in SPELLINGS_15],
    ids=lambda param: f"{param[0]} {param[1]}",
)
def keyed(request: pytest.FixtureRequest) -> Iterator[tuple[str, Connection, str, str]]:
    """URL, the application's connection, two spellings of one key; `docs` has that key beside others."""
    version, kind = request.param
    url: str = request.getfixturevalue({"18": "url", "16": "url16", "15": "url15"}[version])
    declared, first, second = (SPELLINGS | SPELLINGS_15)[kind]
    with psycopg.connect(url, autocommit=True) as application:
        if version == "15":
            application.execute(OF_15)
        application.execute("CREATE DOMAIN amount AS numeric; CREATE TYPE pair AS (n numeric, t text)")
        application.execute("SET search_path = public, extensions; SET timezone = 'America/St_Johns'")
        application.execute(f"CREATE TABLE docs (id {declared} PRIMARY KEY, body text)")
        application.execute("INSERT INTO docs VALUES (%s, 'one')", (first,))
        yield url, application, first, second


def wrong(settings: Settings, encoder: NullEncoder) -> dict[str, int]:
    with connect(settings.database.url, "test") as connection:
        return dict(verify(connection, bound_sync(connection, settings, encoder)).problems)


def assert_only_row(application: Connection, body: str) -> None:
    """The target holds one row, of that text."""
    assert count(application, "docs") == 1
    rows = application.execute("SELECT content_hash, encode_error FROM docs_embedding").fetchall()
    assert rows == [(content_hash(body), None)]


def respell(application: Connection, spelling: str, body: str) -> None:
    """Two changes of one row, noted under both spellings, so close that they are read together."""
    with application.transaction():
        application.execute("UPDATE docs SET body = %s", (body,))
        application.execute("UPDATE docs SET id = %s", (spelling,))


def test_a_key_is_respelt_live(keyed: tuple[str, Connection, str, str]) -> None:
    url, application, first, second = keyed
    settings, encoder = settings_for(url, sync_of("docs", target=REAL), sweep_seconds=600), NullEncoder()
    with running(settings, encoder) as worker:
        wait_fresh(worker)
        for number in range(30):
            respell(application, (second, first)[number % 2], f"text {number}")
            application.execute("UPDATE docs SET body = body || '!'")
            application.execute("UPDATE docs SET id = %s", (second,))
        until("the queue is empty", lambda: count(application, "freshvec.queue_docs") == 0)
        wait_fresh(worker)
        pipeline = worker.keepers[0].pipeline
        assert pipeline is not None
        assert pipeline.ledger.in_flight() == 0
        assert_only_row(application, "text 29!")
        application.execute("DELETE FROM docs")
        until("the row has left", lambda: count(application, "docs_embedding") == 0)
    assert wrong(settings, encoder) == {}


def test_a_key_is_respelt_between_reading_and_writing(keyed: tuple[str, Connection, str, str]) -> None:
    """Outcomes of both spellings, written in one transaction: the later reading counts, in either order."""
    url, application, first, second = keyed
    settings, encoder = settings_for(url, sync_of("docs", target=REAL)), NullEncoder()
    backfill(settings, encoder)
    (vector,) = encoder.encode(encoder.tokenize(["one"]))
    with connect(settings.database.url, "test") as connection:
        bound = bound_sync(connection, settings, encoder)
        (latest,) = connection.execute("SELECT last_value FROM freshvec.fence").fetchone() or (0,)
        epoch = take(connection, bound.name, bound.generation)
        writer = TargetWriter(connection, bound)
        for older, newer in ((first, second), (second, first)):
            latest += 2
            outcomes = [
                Outcome((spelling,), fence, Fate.STORE, vector, content_hash(text))
                for spelling, fence, text in ((older, latest - 1, "older"), (newer, latest, "newer"))
            ]
            with epoch.transaction(connection):
                writer.write(outcomes)
            assert_only_row(application, "newer")


@contextmanager
def process(url: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker with the null encoder as a process of its own."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    started = subprocess.Popen([sys.executable, "-m", "tests.integration.small_worker", url], env=env)
    try:
        yield started
    finally:
        started.kill()
        started.wait(60)


@pytest.mark.parametrize("kind", ["numeric", "interval", "jsonb"])
def test_a_key_is_respelt_during_a_backfill_and_a_kill(url: str, application: Connection, kind: str) -> None:
    declared, first, second = SPELLINGS[kind]
    application.execute(f"CREATE TABLE docs (id {declared}, n int, body text, PRIMARY KEY (id, n))")
    application.execute(
        "INSERT INTO docs SELECT %s, g, 'text ' || g FROM generate_series(1, 6000) g", (first,)
    )

    def written(least: int) -> bool:
        application.execute("UPDATE docs SET body = body || '.' WHERE n = 5990")
        application.execute("UPDATE docs SET id = %s WHERE n IN (5, 3000, 5990)", (second,))
        application.execute("UPDATE docs SET id = %s WHERE n IN (5, 3000, 5990)", (first,))
        return bool(count(application, "pg_class WHERE relname = 'docs_embedding'")) and (
            count(application, "docs_embedding") >= least
        )

    for rows in (1, 1500):
        with process(url) as worker:
            until(f"{rows} rows are written", lambda rows=rows: written(rows))  # type: ignore[misc]
            worker.send_signal(signal.SIGKILL)
            worker.wait(60)
    application.execute("UPDATE docs SET id = %s WHERE n %% 2 = 0", (second,))
    settings, encoder = settings_for(url, sync_of("docs", target=REAL)), NullEncoder()
    with running(settings, encoder) as kept:
        wait_fresh(kept)
        until("the queue is empty", lambda: count(application, "freshvec.queue_docs") == 0)
    assert wrong(settings, encoder) == {}
    assert count(application, "docs_embedding") == 6000


def test_a_text_under_a_nondeterministic_collation(url15: str) -> None:
    with psycopg.connect(url15, autocommit=True) as application:
        application.execute(OF_15)
        application.execute(
            "CREATE TABLE docs (id text COLLATE nocase PRIMARY KEY, body text COLLATE nocase,"
            " more extensions.citext)"
        )
        application.execute("INSERT INTO docs VALUES ('a', 'Hello', 'World')")
        declared = sync_of("docs", target=REAL, columns=["body", "more"])
        settings, encoder = settings_for(url15, declared, sweep_seconds=600), NullEncoder()
        with running(settings, encoder) as worker:
            wait_fresh(worker)
            for change, text in (
                ("body = 'HELLO'", "HELLO\nWorld"),
                ("more = 'WORLD'", "HELLO\nWORLD"),
                ("id = 'A', body = 'hello'", "hello\nWORLD"),
            ):
                application.execute(f"UPDATE docs SET {change}")
                until(change, partial(has_hash, application, text))
        assert wrong(settings, encoder) == {}
