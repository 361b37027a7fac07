"""What is asserted of a sync after something has happened to its table, its target or its definition."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from psycopg.errors import InvalidSchemaName, UndefinedColumn, UndefinedFunction, UndefinedTable

from freshvec.config import Settings
from freshvec.db import connect
from freshvec.errors import FreshvecError
from freshvec.health import status
from freshvec.scans.verify import Report, verify
from freshvec.worker.worker import Worker
from tests.staleness import as_vector
from tests.support import (
    Connection,
    NullEncoder,
    bound_sync,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
)

_EVERY_ROW = """
SELECT d.{key}, t.{key}, nullif({text}, ''), {vector}::text, t.fingerprint
  FROM {table} d FULL JOIN {target} t ON d.{key} = t.{key}
"""
# What an event took away is not back yet, or its key is of another type.
_NOT_YET = (UndefinedTable, UndefinedColumn, UndefinedFunction, InvalidSchemaName)


@dataclass
class Kept:
    """A table that a worker keeps. `app` is the application's connection, `text` what is embedded, as SQL.

    The worker sweeps only when a test asks for it.
    """

    url: str
    app: Connection
    sync: dict[str, Any] = field(default_factory=lambda: sync_of("docs"))
    encoder: NullEncoder = field(default_factory=NullEncoder)
    table: str = "docs"
    target: str = "docs_embedding"
    key: str = "id"
    text: str = "body"
    vector: str = "t.embedding"
    daemon: dict[str, Any] = field(default_factory=dict)
    _looking: Connection | None = None

    @property
    def settings(self) -> Settings:
        return settings_for(self.url, self.sync, **{"sweep_seconds": 3600.0, **self.daemon})

    @contextmanager
    def running(self) -> Iterator[Worker]:
        """A worker that has brought everything to rest."""
        with running(self.settings, self.encoder) as worker:
            wait_fresh(worker)
            yield worker
        self.close()

    def wrong(self) -> list[str]:
        """Rows whose vector is not a fresh encoding of their text, missing ones and orphans."""
        found, have = [], []
        names = {"key": self.key, "text": self.text, "table": self.table, "target": self.target}
        query = _EVERY_ROW.format(vector=self.vector, **names)
        for source, copy, text, vector, fingerprint in self.app.execute(query.encode(), prepare=False):
            if source is None:
                found.append(f"{copy}: orphaned")
            elif (text is None) != (vector is None):
                found.append(f"{source}: {'missing' if text else 'kept without a text'}")
            elif text is not None and bytes(fingerprint or b"") != self.encoder.fingerprint:
                found.append(f"{source}: of another model")
            elif text is not None:
                have.append((source, text, as_vector(vector)))
        if have:
            judge = NullEncoder()
            fresh = judge.encode(judge.tokenize([text for _, text, _ in have]))
            distances = np.abs(np.stack([vector for *_, vector in have]) - fresh).max(axis=1)
            pairs = zip(have, distances, strict=True)
            found += [f"{key}: of another text" for (key, *_), distance in pairs if not distance < 1e-5]
        return found

    @property
    def _connection(self) -> Connection:
        """A session to look with. It stays: what is asked is most of what a new one costs."""
        if self._looking is None or self._looking.closed:
            self._looking = connect(self.settings.database.url, "test")
            self._looking.prepare_threshold = None  # what it asks about is dropped and made again
            self._looking.execute("SET application_name = 'looking'")  # tests cut off what is freshvec's
        return self._looking

    def status(self) -> dict[str, Any]:
        return status.read(self._connection)[0]

    def verify(self, *, repair: bool = False) -> Report:
        bound = bound_sync(self._connection, self.settings, self.encoder)
        return verify(self._connection, bound, repair=repair)

    def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.close()

    def is_right(self) -> bool:
        """Whether rows, `verify` and `status` agree that every row is fresh."""
        try:
            return not self.wrong() and status.is_fresh(self.status()) and self.verify().is_fresh
        except (FreshvecError, IndexError, *_NOT_YET):
            return False

    def comes_to_rest(self, worker: Worker | None = None) -> None:
        """After a sweep every row is right, and so are edits that come later, without another sweep."""
        if worker is not None:
            worker.sweep()
        until("everything is right", self.is_right)
        for number in range(2):
            self.edit(f"edited {number}")
            until(f"edits are followed, time {number}", self.is_right)
        # It stands for some seconds after the last failure (`RECOVERED_SECONDS`), and may be written down as
        # late as then.
        if worker is not None:
            until("what failed is over", lambda: all(keeper.last_error is None for keeper in worker.keepers))
        until("no error is shown any more", lambda: self.status()["last_error"] is None)
        shown = self.status()
        rows = self.app.execute(f"SELECT count(*) FROM {self.table} WHERE {self.text} <> ''".encode())
        assert rows.fetchone() == (shown["rows_fresh"],)

    def edit(self, text: str) -> None:
        """One row of each: changed, inserted, gone, and without a text."""
        key, table = self.key, self.table
        keys = [row[0] for row in self.app.execute(f"SELECT {key} FROM {table} ORDER BY {key}".encode())]
        highest = keys[-1] if keys else 0
        for statement in (
            f"UPDATE {table} SET body = '{text}' WHERE {key} = {keys[0] if keys else 0}",
            f"INSERT INTO {table} ({key}, body) VALUES ({highest} + 1, 'new {text}')",
            f"INSERT INTO {table} ({key}, body) VALUES ({highest} + 2, 'gone')",
            f"DELETE FROM {table} WHERE {key} = {highest} + 2",
            f"UPDATE {table} SET body = NULL WHERE {key} = {keys[1] if len(keys) > 1 else 0}",
        ):
            self.app.execute(statement.encode())


def triggers(app: Connection) -> set[str]:
    """Tables that have a trigger that notes their changes."""
    noting = "tgfoid IN (SELECT oid FROM pg_proc WHERE proname LIKE 'capture\\_%')"
    query = f"SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger WHERE {noting}"
    return {table for (table,) in app.execute(query.encode())}
