"""The keepers of a worker, one for each sync that is run, and the models that they encode with."""

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loguru import logger

from freshvec.backoff import Backoff
from freshvec.capture.bell import Listener
from freshvec.config import Settings, Sync
from freshvec.encoding.dispatch import Dispatcher
from freshvec.encoding.loading import Models
from freshvec.errors import DeviceError, ModelError, UnusableModelError
from freshvec.pipeline.resources import Resources
from freshvec.records import Encoder
from freshvec.worker.keeper import Keeper

FIRST_SECONDS = 30.0  # at most, until a model that could not be loaded is tried again


@dataclass(frozen=True)
class _LeftOut:
    """A sync whose model could not be loaded, and when that is tried again."""

    sync: Sync
    backoff: Backoff
    due: float


class Keepers:
    """`all` of them; `left_out` are syncs whose models could not be loaded, and why."""

    def __init__(
        self,
        settings: Settings,
        load: Callable[[str], Encoder] | None,
        resources: Resources,
        on_event: Callable[[], None],
        *,
        once: bool,
    ) -> None:
        self.all: list[Keeper] = []
        self.dispatchers: dict[str, Dispatcher] = {}
        self.left_out: dict[str, str] = {}
        self._left_out: dict[str, _LeftOut] = {}
        self._settings = settings
        self._models = Models(settings)
        self._load = load or self._models.encoder
        self._resources = resources
        self._on_event = on_event
        self._once = once

    def begin(self, syncs: Sequence[Sync]) -> None:
        """One bad model must not keep other tables from being fresh. Raises ModelError where all are bad."""
        is_device_lost = False
        for sync in syncs:
            try:
                self._add(sync)
            except ModelError as error:
                if self._once or len(syncs) == 1:
                    raise
                is_device_lost |= isinstance(error, DeviceError)
                self._leave_out(sync, error)
        if not self.all:
            kind = DeviceError if is_device_lost else UnusableModelError
            raise kind("run", "any sync", "none of their models could be loaded", "See the errors above.")

    def try_again(self) -> None:
        """Those that are left out, at the next change."""
        self._left_out.clear()

    def change_to(self, syncs: Sequence[Sync], listener: Listener) -> bool:
        """Run these: who is gone or changed ends, new ones begin, the others go on. False where these are
        run. Models that were loaded in another precision than that of their vectors are loaded anew.

        Raises DatabaseError, and where it is to work once ModelError."""
        wanted = {sync.name: sync for sync in syncs}
        loaded = {name: dispatcher.encoder for name, dispatcher in self.dispatchers.items()}
        mistaken = {name for name, encoder in loaded.items() if self._models.is_mistaken(name, encoder)}
        ending = [
            keeper
            for keeper in self.all
            if wanted.get(keeper.sync.name) != keeper.sync or keeper.sync.model in mistaken
        ]
        for keeper in ending:
            keeper.leave(listener, self._settings.daemon.shutdown_seconds)
            self.all.remove(keeper)
        for name in mistaken:
            self.dispatchers.pop(name).stop(timeout=2.0)
        self.left_out = {name: why for name, why in self.left_out.items() if name in wanted}
        there = {keeper.sync.name for keeper in self.all}
        beginning = [sync for sync in syncs if sync.name not in there and self._may_begin(sync)]
        for sync in beginning:
            try:
                self._add(sync)
            except ModelError as error:
                if self._once:
                    raise
                self._leave_out(sync, error)
        self._let_go()
        if ending:
            gc.collect()  # a pipeline refers to itself: by itself it might hold its model for hours
        return bool(ending or beginning)

    def _let_go(self) -> None:
        """Of models with which no sync encodes any more, as after a swap: each holds memory by the hundred
        megabytes."""
        syncs = [*(keeper.sync for keeper in self.all), *(each.sync for each in self._left_out.values())]
        for name in self.dispatchers.keys() - {sync.model for sync in syncs}:
            dispatcher = self.dispatchers.pop(name)
            self._models.keep_budget(name, dispatcher)
            dispatcher.stop(timeout=2.0)
            logger.info("model {} is let go of: no sync encodes with it any more", name)

    def _may_begin(self, sync: Sync) -> bool:
        """Whether it was not left out, or is tried again: a device may have had no room for its model."""
        before = self._left_out.get(sync.name)
        return before is None or before.sync != sync or time.monotonic() >= before.due

    def keep_budgets(self) -> None:
        """Keep what was found out about batch sizes."""
        for name, dispatcher in list(self.dispatchers.items()):  # the main thread may change them
            self._models.keep_budget(name, dispatcher)

    def _add(self, sync: Sync) -> None:
        if sync.model not in self.dispatchers:
            encoder = self._load(sync.model)
            self.dispatchers[sync.model] = self._models.dispatcher(sync.model, encoder)
            logger.info("model {} on {} in {}", sync.model, encoder.device, encoder.precision)
        dispatcher = self.dispatchers[sync.model]
        described = self._models.describe_loaded(sync, dispatcher.encoder)
        settings, resources = self._settings, self._resources
        keeper = Keeper(sync, described, dispatcher, settings, resources, self._on_event, once=self._once)
        self.all.append(keeper)
        self.left_out.pop(sync.name, None)
        self._left_out.pop(sync.name, None)

    def _leave_out(self, sync: Sync, error: ModelError) -> None:
        before = self._left_out.get(sync.name)
        backoff = (
            before.backoff if before and before.sync == sync else Backoff(first=FIRST_SECONDS, cap=600.0)
        )
        delay = backoff.next_delay()
        self._left_out[sync.name] = _LeftOut(sync, backoff, time.monotonic() + delay)
        self.left_out[sync.name] = str(error)
        logger.error("sync {}: {} (next attempt in {:.0f} s or later)", sync.name, error, delay)
