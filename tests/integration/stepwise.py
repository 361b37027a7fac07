"""One step at a time: what reads and writes the queue of a table, without a worker around it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg

from freshvec.capture.queue import QueueReader
from freshvec.db import connect
from freshvec.pipeline.epoch import Epoch, take
from freshvec.pipeline.ledger import Ledger, Portion, Ready
from freshvec.pipeline.progress import Progress
from freshvec.pipeline.writer import Writer
from freshvec.records import Entry, Fate, Key, Outcome, Tokens, Urgency, Vector
from tests.support import Connection, NullEncoder, backfill, bound_sync, settings_for, sync_of

KEY = ("1",)


class Bench:
    """The table `docs` with rows 1 to 3, applied and fresh; readers and writers of its queue, no worker."""

    def __init__(self, docs: Connection) -> None:
        self.docs = docs
        docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 3) g")
        self.settings = settings_for(docs.info.dsn, sync_of("docs"), sweep_seconds=600)
        backfill(self.settings, NullEncoder())

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """Another session of the application, with a transaction that ends when it is told to."""
        with psycopg.connect(self.docs.info.dsn) as session:
            yield session

    @contextmanager
    def reader(self) -> Iterator[QueueReader]:
        with connect(self.settings.database.url, "test") as connection:
            yield QueueReader(connection, bound_sync(connection, self.settings, NullEncoder()))

    @contextmanager
    def writer(self, epoch: Epoch | None = None) -> Iterator[tuple[Writer, Ledger, Epoch]]:
        """A writer, of a new owner's time or of the one that is given."""
        with connect(self.settings.database.url, "test") as connection:
            bound = bound_sync(connection, self.settings, NullEncoder())
            epoch = epoch or take(connection, "docs", bound.generation)
            ledger = Ledger()
            yield (
                Writer(connection, bound, self.settings.daemon, Progress(), ledger, epoch),
                ledger,
                epoch,
            )

    def edit(self, text: str | None, row: int = 1, session: Connection | None = None) -> None:
        (session or self.docs).execute("UPDATE docs SET body = %s WHERE id = %s", (text, row))

    def edit_unnoted(self, text: str | None, session: Connection) -> None:
        """A change that no queue entry tells of."""
        self.edit(text, session=session)
        session.execute("DELETE FROM freshvec.queue_docs")

    def stored(self) -> tuple[Any, ...] | None:
        return self.docs.execute("SELECT content_hash, fence FROM docs_embedding WHERE id = 1").fetchone()


def outcome(fence: int, fate: Fate = Fate.STORE, text: bytes | None = b"text") -> Outcome:
    vector: Vector | None = np.ones(8, dtype=np.float32) if text and fate is Fate.STORE else None
    return Outcome(KEY, fence, fate, vector, text)


def flush(writer: Writer, ledger: Ledger, written: Outcome) -> None:
    """Write one outcome, as the pipeline does it."""
    portion = Portion(Urgency.LIVE, written.fence, 1)
    ledger.open(portion)
    writer.flush([Ready(portion, [written])])


def drain(reader: QueueReader, handed_out: list[Entry]) -> list[Key]:
    """Read until nothing is found, twice; what was found."""
    found = []
    for bulk in (False, True) * 2:
        while changes := reader.read(100, handed_out, bulk=bulk)[1]:
            for change in changes:
                handed_out += change.entries
                found.append(change.key)
    return found


class HeldEncoder(NullEncoder):
    """Holds what it encodes while it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.is_held = threading.Event()
        self._free = threading.Event()
        self._free.set()

    @contextmanager
    def holding(self) -> Iterator[None]:
        self.is_held.clear()
        self._free.clear()
        try:
            yield
        finally:
            self.free()

    def free(self) -> None:
        self._free.set()

    def encode(self, batch: list[Tokens]) -> Vector:
        if not self._free.is_set():
            self.is_held.set()
            assert self._free.wait(90)
        return super().encode(batch)
