"""Activity: what a worker measured, kept in the database for `status` to show."""

import os
import socket

from loguru import logger

from freshvec.config import Settings
from freshvec.db import Connection, connect, queries, translated
from freshvec.errors import DatabaseError
from freshvec.pipeline.progress import Snapshot
from freshvec.worker.keeper import Keeper

_SQL = queries("worker/activity")


class Activity:
    """Writes on a connection of its own, which is opened again whenever it is lost."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: Connection | None = None
        self._kept: dict[str, Snapshot] = {}

    def keep(self, keepers: list[Keeper]) -> None:
        """Write what was measured of each sync, if anything moved since the last time."""
        for keeper in keepers:
            if not keeper.is_owner:
                continue  # another worker measures
            measured = keeper.progress.snapshot()
            if not measured.done or measured == self._kept.get(keeper.sync.name):
                continue
            self._kept[keeper.sync.name] = measured
            keeper.dispatcher.measure()
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = connect(self._settings.database.url, "activity")
                with translated("write", "the activity"):
                    self._connection.execute(_SQL["measured"], _columns(keeper, measured))
            except DatabaseError as error:
                logger.debug("{}", error)


def _columns(keeper: Keeper, measured: Snapshot) -> dict[str, object]:
    memory = keeper.dispatcher.memory
    return {
        "sync": keeper.sync.name,
        "worker": f"{socket.gethostname()}:{os.getpid()}",
        "device": keeper.dispatcher.encoder.device,
        "rows_per_second": measured.rows_per_second,
        "rows_written": measured.done,
        "texts_truncated": measured.truncated,
        "lag_p50_ms": measured.lag_p50_ms,
        "lag_p99_ms": measured.lag_p99_ms,
        "last_error": keeper.last_error,
        "batch_tokens": keeper.dispatcher.budget.settled,
        "device_memory_used_bytes": memory and int(memory.used * 1e9),
        "device_memory_total_bytes": memory and int(memory.total * 1e9),
    }
