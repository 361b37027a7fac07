"""`run` and `backfill` by workers on another engine's machines, shown and ended from here."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loguru import logger

from freshvec.cli.fleet import view_of
from freshvec.cli.fleet_view import followed
from freshvec.config import Settings, Sync
from freshvec.errors import ServerError, UsageError
from freshvec.fleet.member import PER_GPU, number_of
from freshvec.worker.endpoint import Endpoint

if TYPE_CHECKING:
    from freshvec.fleet.driver import Driver

Reload = Callable[[], tuple[Settings, tuple[Sync, ...]]]


@dataclass(frozen=True)
class Elsewhere:
    """Another engine's machines: which engine, where it is, and how many workers; None for all it can."""

    engine: str
    address: str | None
    workers: str | None


def run(
    settings: Settings, syncs: tuple[Sync, ...], where: Elsewhere, reload: Reload, is_asked: threading.Event
) -> int:
    """Keep every row fresh by workers on another engine, and show here how they are. Returns the exit code.

    `is_asked`: set where `reload` was asked for before. Raises FreshvecError.
    """
    if settings.daemon.serve:
        logger.info("no embeddings requests are answered here, without a model: see `freshvec serve`")
    driver = _driver(settings, syncs, where, once=False, reload=reload, is_asked=is_asked)
    endpoint = _page(settings, driver)
    try:
        if endpoint is not None:
            endpoint.start()
        with followed(view_of(settings, syncs, once=False, has_bars=True)):
            return driver.run()
    finally:
        if endpoint is not None:
            endpoint.stop()


def backfill(settings: Settings, syncs: tuple[Sync, ...], where: Elsewhere) -> int:
    """The same until every row is fresh. Rows that could not be encoded make the exit code 1."""
    driver = _driver(settings, syncs, where, once=True)
    view = view_of(settings, syncs, once=True, has_bars=True)
    with followed(view):
        code = driver.run()
    return 1 if view.summary() and code == 0 else code


def _driver(
    settings: Settings,
    syncs: tuple[Sync, ...],
    where: Elsewhere,
    *,
    once: bool,
    reload: Reload | None = None,
    is_asked: threading.Event | None = None,
) -> "Driver":
    if where.engine != "ray":
        fault = f"--on {where.engine}: there is no such engine; write ray"
        raise UsageError(fault)
    is_open = where.workers is None or where.workers == PER_GPU
    count = None if is_open else number_of(where.workers or "")
    from freshvec.fleet.driver import Driver
    from freshvec.fleet.on_ray import RayCluster  # seconds, and only where it is asked for

    cluster = RayCluster(settings, where.address, once=once)
    return Driver(cluster, settings, syncs, workers=count, once=once, reload=reload, is_asked=is_asked)


def _page(settings: Settings, driver: "Driver") -> Endpoint | None:
    """The page of all workers. Raises ServerError where one was asked for and cannot be."""
    try:
        from freshvec.web.serve import page_of
    except ServerError as error:
        if "address" in settings.web.model_fields_set and settings.web.address != "off":
            raise
        logger.info("no page and no metrics: {}", error)
        return None
    return page_of(settings, driver.now)
