"""What signals do to a worker."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

from loguru import logger


def note_reload() -> threading.Event:
    """From now on SIGHUP is noted, until there is a worker that obeys it: by itself it would end the process
    while that loads its models."""
    asked = threading.Event()
    signal.signal(signal.SIGHUP, lambda number, frame: asked.set())
    return asked


def handle(stop: Callable[[], object], reload: Callable[[], object], stopping: threading.Event) -> None:
    """SIGTERM and SIGINT stop it, at once where it is `stopping` already; SIGHUP reloads."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        stop()  # before anything is said: a second signal may come while this line is written
        logger.info("{}: finishing what is under way (again to stop at once)", signal.Signals(number).name)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGHUP, lambda number, frame: reload())
