"""Activity: what a worker is at and what it measured, kept in the database for others to see."""

import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import LiteralString

from loguru import logger

from freshvec.config import Settings
from freshvec.db import Connection, connect, queries, translated
from freshvec.errors import DatabaseError
from freshvec.pipeline.epoch import worker_name
from freshvec.pipeline.pressure import Pressure
from freshvec.worker.keeper import Keeper

_SQL = queries("worker/activity")


class Activity:
    """Works on a connection of its own, which is opened again whenever it is lost."""

    def __init__(self, settings: Settings, pressure: Pressure) -> None:
        self._settings = settings
        self._pressure = pressure
        self._keeping = threading.Lock()
        self._lock = threading.Lock()  # the connection's
        self._connection: Connection | None = None
        self._is_closed = False
        self._kept: dict[str, object] = {}

    def keep(self, keepers: list[Keeper]) -> None:
        """Write what is new of each sync since the last time. Threads do so in turn: what one has measured
        before is not to be written after what another has measured."""
        with self._keeping:
            for keeper in keepers:
                self._keep_lags(keeper)
                self._keep_measured(keeper)

    def look(self, reading: Callable[[Connection], object]) -> None:
        """Let somebody read on this connection."""
        self._try(reading)

    def feel_pressure(self) -> None:
        """Look how busy the database is. Where there is no session to look on, nothing waits for it."""
        if not self._try(self._pressure.look):
            self._pressure.cannot_look()

    def close(self) -> None:
        """Keep nothing more."""
        with self._lock:
            self._is_closed = True
            if self._connection is not None:
                self._connection.close()

    def _keep_measured(self, keeper: Keeper) -> None:
        if not keeper.leads:
            self._kept.pop(keeper.sync.name, None)  # another worker measures, and writes over it
            return
        snapshot = (keeper.progress.snapshot(), keeper.phase, self._pressure.reason, keeper.last_error)
        if snapshot == self._kept.get(keeper.sync.name):
            return
        keeper.dispatcher.measure()
        if self._execute(_SQL["measured"], self._columns(keeper)):
            self._kept[keeper.sync.name] = snapshot

    def _keep_lags(self, keeper: Keeper) -> None:
        """Add what was taken since the last time; what could not be written is added the next time."""
        lags = keeper.progress.take_lags()
        if not lags:
            return
        if self._execute(_SQL["add_lags"], {"sync": keeper.sync.name, **asdict(lags)}):
            self._execute(_SQL["fold_old_lags"], {"sync": keeper.sync.name})
        else:
            keeper.progress.give_back(lags)

    def _execute(self, query: LiteralString, given: dict[str, object]) -> bool:
        """Whether that was done."""
        return self._try(lambda connection: connection.execute(query, given))

    def _try(self, work: Callable[[Connection], object]) -> bool:
        """Do this on the connection; False where it failed, to be tried again the next time."""
        try:
            with self._lock, translated("write", "the activity"):
                if self._is_closed:
                    return False
                if self._connection is None or self._connection.closed:
                    self._connection = connect(self._settings.database.url, "activity")
                work(self._connection)
        except DatabaseError as error:
            logger.debug("{}", error)
            return False
        return True

    def _columns(self, keeper: Keeper) -> dict[str, object]:
        memory, measured = keeper.dispatcher.memory, keeper.progress.snapshot()
        return {
            "sync": keeper.sync.name,
            "worker": worker_name(),
            "device": keeper.dispatcher.encoder.device,
            "phase": keeper.phase,
            "paused": self._pressure.reason,
            "rows_per_second": measured.rows_per_second,
            "rows_written": measured.done,
            "texts_truncated": measured.truncated,
            "last_error": keeper.last_error,
            "batch_tokens": keeper.dispatcher.budget.settled,
            "device_memory_used_bytes": memory and int(memory.used * 1e9),
            "device_memory_total_bytes": memory and int(memory.total * 1e9),
        }
