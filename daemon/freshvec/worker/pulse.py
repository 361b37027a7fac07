"""The worker's sign of life: what its supervisor's watchdog and a health check are told."""

import time
from collections.abc import Iterable

from freshvec.worker.keeper import Keeper
from freshvec.worker.sdnotify import notify, watchdog_seconds

_STUCK_SECONDS = 120.0  # a thread without a sign of life for this long: let the supervisor restart us


class Pulse:
    """Felt by the main loop at each turn. `watchdog` is how often systemd wants a sign, in seconds."""

    def __init__(self) -> None:
        self.watchdog = watchdog_seconds()
        self._felt_at = time.monotonic()

    def feel(self, keepers: Iterable[Keeper]) -> None:
        """Tell the watchdog that the pipelines move; when one does not, say nothing and be restarted."""
        if all(keeper.pipeline is None or keeper.pipeline.beat() < _STUCK_SECONDS for keeper in keepers):
            self._felt_at = time.monotonic()
            notify("WATCHDOG=1")

    @property
    def is_alive(self) -> bool:
        """Whether the main loop turns and every pipeline moves."""
        return time.monotonic() - self._felt_at < _STUCK_SECONDS
