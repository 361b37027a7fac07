"""Ctrl-C, SIGTERM and a terminal that is closed during work that must be undone."""

import signal
from types import FrameType, TracebackType
from typing import Self

from freshvec.errors import FreshvecError


class Interruption:
    """As a context manager it takes these signals, and ends what they interrupted with an error that says so.

    At first they raise KeyboardInterrupt at once. An exception may fall between the start of a process and
    the line that remembers it, so once `only_note` is called they are noted, and `check` raises.
    """

    def __init__(self, operation: str, what: str) -> None:
        """`operation` and `what`: what is interrupted, for the error."""
        self._error = FreshvecError(
            operation, what, "it was interrupted", "Everything it started is stopped."
        )
        self._is_only_noted = False
        self.is_noted = False

    def __enter__(self) -> Self:
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        self._before = {number: signal.signal(number, self._on_signal) for number in numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises FreshvecError after an interruption, whatever else came of it."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.is_noted:
            raise self._error from None

    def only_note(self) -> None:
        """From here on a signal waits for the next check."""
        self._is_only_noted = True
        self.check()

    def check(self) -> None:
        """Raises KeyboardInterrupt where a signal has come."""
        if self.is_noted:
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.is_noted = True
        if not self._is_only_noted:
            raise KeyboardInterrupt
