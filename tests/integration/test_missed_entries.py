"""Entries that are not where they were read: whoever finds that out, the queue is read from its beginning."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from freshvec.capture.queue import QueueReader
from freshvec.db import connect
from freshvec.encoding.budget import BatchBudget
from freshvec.encoding.dispatch import Dispatcher
from freshvec.pipeline.epoch import take
from freshvec.pipeline.ledger import Ledger
from freshvec.pipeline.pressure import Pressure
from freshvec.pipeline.progress import Progress
from freshvec.pipeline.reader import Reader
from tests.integration.stepwise import Bench
from tests.support import Connection, NullEncoder, bound_sync


def test_what_the_writer_finds_while_the_reader_looks_is_not_forgotten(
    docs: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, ledger, begun = Bench(docs), Ledger(), list[bool]()

    def find() -> bool:
        """No row's rest has ended; meanwhile the writer finds an entry gone."""
        ledger.has_missed = True
        return False

    with connect(bench.settings.database.url, "test") as connection, ThreadPoolExecutor(1) as threads:
        bound = bound_sync(connection, bench.settings, NullEncoder())
        dispatcher = Dispatcher(NullEncoder(), BatchBudget(64, fixed=True))
        shared = (bench.settings.daemon, Progress(), ledger, take(connection, "docs", bound.generation))
        reader = Reader(connection, bound, dispatcher, *shared, threads, Pressure(None))
        monkeypatch.setattr(ledger.rests, "end_due", find)
        monkeypatch.setattr(QueueReader, "start_over", lambda queue: begun.append(True))
        reader.cycle()
        dispatcher.stop(10)
    assert begun
