"""What the tests of workers that share a sync have in common."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from freshvec.config import Settings
from freshvec.worker.worker import Worker
from tests.support import Connection, NullEncoder, running, settings_for, sync_of, until

AT_REST = "SELECT backlog = 0 AND coverage = 1 AND backfill_done AND NOT rescan_waiting FROM freshvec.status"


def shared(docs: Connection, sync: dict[str, Any] | None = None, **daemon: Any) -> Settings:
    """Nothing is found by sweeps but what is not heard of."""
    daemon = {"sweep_seconds": 600.0, "page_rows": 100, "share": True, **daemon}
    return settings_for(docs.info.dsn, sync or sync_of("docs"), **daemon)


@contextmanager
def together(docs: Connection, number: int, **daemon: Any) -> Iterator[list[Worker]]:
    """So many workers, once each has its shards."""
    with ExitStack() as stack:
        settings = shared(docs, **daemon)
        workers = [stack.enter_context(running(settings, NullEncoder(0.001))) for _ in range(number)]
        until("each has its shards", lambda: is_fair(docs, number))
        yield workers


def shards(docs: Connection) -> list[int]:
    if docs.execute("SELECT to_regclass('freshvec.workers')").fetchone() == (None,):
        return []
    return [number for (number,) in docs.execute("SELECT shards FROM freshvec.workers ORDER BY shards")]


def is_fair(docs: Connection, number: int) -> bool:
    has = shards(docs)
    return len(has) == number and sum(has) == 64 and max(has) - min(has) <= 1


def is_at_rest(docs: Connection) -> bool:
    return docs.execute(AT_REST).fetchone() == (True,)


def fill(docs: Connection, rows: int) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, %s) g", (rows,))


def done_by(worker: Worker) -> int:
    return worker.keepers[0].progress.snapshot().done


def encoded_by(workers: list[Worker]) -> int:
    """Texts, by all of them together."""
    encoders = [dispatcher.encoder for worker in workers for dispatcher in worker.dispatchers.values()]
    return sum(encoder.encoded for encoder in encoders if isinstance(encoder, NullEncoder))
