"""Random programs of SQL over every kind of key; workers restart, are killed, stand by and are redefined.

At rest every vector is a fresh encoding of its row's text, none is missing, none orphaned, `verify` agrees,
and the count that is kept is the count there is. FRESHVEC_PROGRAMS=2000 runs so many, at random, instead of
the same 100.
"""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext, suppress

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings

from freshvec.config import Settings
from freshvec.db import connect
from freshvec.scans.verify import verify
from freshvec.worker.worker import Worker
from tests.acceptance.programs import (
    COPIES,
    KINDS,
    PROGRAMS,
    Event,
    Program,
    Statement,
    Step,
    Together,
    composed,
    tables,
)
from tests.staleness import as_vector
from tests.support import Connection, NullEncoder, bound_sync, running, settings_for, sync_of

_WANTED = int(os.environ.get("FRESHVEC_PROGRAMS", "0"))
_AT_REST_SECONDS = 45.0
_COLUMNS = (["body"], ["body", "note"])


class Stage:
    """A table, the application's session on it, and the workers that keep it."""

    def __init__(self, url: str, program: Program, stack: ExitStack) -> None:
        self._url = url
        self._program = program
        self._stack = stack
        self._workers: list[tuple[Worker, ExitStack]] = []
        self._columns = 0
        self.encoder = NullEncoder()
        self.session: Connection = stack.enter_context(psycopg.connect(url, autocommit=True))
        self.session.execute("SET search_path = app, public; SET client_min_messages = error")
        self.session.execute(tables(program))
        self.start_worker()

    @property
    def settings(self) -> Settings:
        sync = sync_of("app.docs", columns=_COLUMNS[self._columns % 2], where="wanted")
        return settings_for(self._url, sync, commit_every_seconds=0.02, shutdown_seconds=5.0)

    def start_worker(self) -> None:
        life = self._stack.enter_context(ExitStack())
        self._workers.append((life.enter_context(running(self.settings, self.encoder)), life))

    def stop_worker(self) -> None:
        _, life = self._workers.pop(0)
        life.close()

    def take(self, step: Step) -> None:
        if isinstance(step, Event):
            self._happen(step.what)
        elif isinstance(step, Together):
            self._together(step)
        else:
            with suppress(psycopg.Error):
                self._execute(step)

    def _together(self, step: Together) -> None:
        with suppress(psycopg.Error), self.session.transaction():
            for statement in step.statements:
                with suppress(psycopg.Error), self.session.transaction():
                    self._execute(statement)
                    if statement.undone:
                        raise psycopg.Rollback
            if not step.commits:
                raise psycopg.Rollback

    def _execute(self, statement: Statement) -> None:
        kind = self._program.kind
        if statement.what == COPIES:
            query = f"SELECT {kind.key(statement.row)}, %s::text UNION ALL SELECT {kind.key(9)}, 'copied'"
            rows = self.session.execute(query, (statement.text,)).fetchall()
            with self.session.cursor().copy(f"COPY docs ({kind.names}, body) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
            return
        parts = composed(kind, statement).split(";")
        with self.session.transaction() if len(parts) > 1 else nullcontext():
            for part in parts:
                self.session.execute(part, {"text": statement.text})

    def _happen(self, what: str) -> None:
        if what == "restart":
            self.stop_worker()
            if not self._workers:
                self.start_worker()
        elif what == "kill backends":
            self.session.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name LIKE 'freshvec%'"
            )
        elif what == "second worker" and len(self._workers) == 1:
            self.start_worker()
        elif what == "redefine":
            self._columns += 1
            while self._workers:
                self.stop_worker()
            self.start_worker()
        elif what == "rest":
            self.come_to_rest()

    def come_to_rest(self) -> None:
        """Wait until nothing is left to do and every vector is right; fail with what stays wrong."""
        deadline = time.monotonic() + _AT_REST_SECONDS
        swept = 0.0
        while True:
            if time.monotonic() > swept + 1.0:
                swept = time.monotonic()
                for worker, _ in self._workers:
                    worker.sweep()
            fresh = any(keeper.is_fresh for worker, _ in self._workers for keeper in worker.keepers)
            found = self.wrong() if fresh else ["no worker says that it is fresh"]
            if not found:
                return
            assert time.monotonic() < deadline, found
            time.sleep(0.01)

    def wrong(self) -> list[str]:
        """Rows whose vector is not that of their text, the count that is kept, and what verify finds."""
        found = list(self._wrong_vectors())
        counts = self.session.execute(
            "SELECT rows_embedded, (SELECT count(*) FROM docs_embedding WHERE embedding IS NOT NULL)"
            " FROM freshvec.sync"
        ).fetchone()
        if counts is None or counts[0] != counts[1]:
            found.append(f"counted and there are: {counts}")
        if not found:
            with connect(self.settings.database.url, "test") as connection:
                report = verify(connection, bound_sync(connection, self.settings, self.encoder))
            found += [f"verify: {report.problems}"] if report.problems else []
        return found

    def _wrong_vectors(self) -> Iterator[str]:
        names = self._program.kind.names
        text = f"concat_ws(E'\\n', {', '.join(_COLUMNS[self._columns % 2])})"
        shown = f"wanted AND {text} ~ '[^[:space:]]'"
        query = f"""
            SELECT coalesce(d.key, t.key), d.key IS NULL, d.text, t.embedding::text
              FROM (SELECT {names}, ROW({names})::text AS key, CASE WHEN {shown} THEN {text} END AS text
                      FROM docs) AS d
              FULL JOIN (SELECT {names}, ROW({names})::text AS key, embedding FROM docs_embedding) AS t
             USING ({names})"""
        for key, is_gone, wanted, vector in self.session.execute(query).fetchall():
            if is_gone:
                yield f"{key}: orphaned"
            elif (wanted is None) != (vector is None):
                yield f"{key}: {'missing' if vector is None else 'kept the vector of a text that is gone'}"
            elif wanted is not None:
                (right,) = self.encoder.encode(self.encoder.tokenize([wanted]))
                if abs(as_vector(vector) - right).max() > 1e-5:
                    yield f"{key}: not the vector of {wanted!r}"


def run(url: str, program: Program) -> None:
    with ExitStack() as stack:
        stage = Stage(url, program, stack)
        for step in program.steps:
            stage.take(step)
        stage.come_to_rest()


def of(kind: str, *steps: Step, is_partitioned: bool = False) -> Program:
    """A program of few statements that is always run: the first version failed it."""
    (found,) = (each for each in KINDS if each.name == kind)
    return Program(found, is_partitioned, steps)


@pytest.mark.timeout(900 + 2 * _WANTED)
@settings(
    max_examples=_WANTED or 100,
    derandomize=not _WANTED,
    deadline=None,
    print_blob=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(program=PROGRAMS)
@example(of("numeric", Together((Statement("edit", 1, text="two"), Statement("spell otherwise", 1)))))
@example(of("bigint", Statement("swap", 1, 2), Event("rest"), Statement("edit", 3, text="two")))
@example(of("bigint", Statement("merge a new key", 1, 9), is_partitioned=True))
def test_every_program_ends_fresh(url: str, program: Program) -> None:
    run(url, program)
