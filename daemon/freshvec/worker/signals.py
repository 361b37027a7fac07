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


def handle(
    stop: Callable[[], object],
    reload: Callable[[], object],
    stopping: threading.Event,
    *,
    seconds: float | None = None,
) -> None:
    """SIGTERM and SIGINT stop it, at once where it is `stopping` already; SIGHUP reloads.

    `seconds` after the first it is ended as it is, if it has not ended: a server that hangs answers nothing,
    and keeps whatever waits for an answer.
    """

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        if seconds is not None:
            signal.signal(signal.SIGALRM, on_alarm)
            signal.setitimer(signal.ITIMER_REAL, seconds)
        stop()  # before anything is said: a second signal may come while this line is written
        logger.info("{}: finishing what is under way (again to stop at once)", signal.Signals(number).name)

    def on_alarm(number: int, frame: FrameType | None) -> None:
        logger.error("what is under way does not end within {:.0f} s: ended as it is", seconds)
        os._exit(1)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGHUP, lambda number, frame: reload())
