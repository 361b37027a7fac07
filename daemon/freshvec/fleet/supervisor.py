"""The supervisor of several workers on one machine: starts them, hands signals on, and speaks for all."""

import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence

from loguru import logger

from freshvec.fleet.child import HOPELESS, Child, code_of_all, ending
from freshvec.fleet.member import Member
from freshvec.worker import signals
from freshvec.worker.sdnotify import ask_for_time, notify, show, watchdog_seconds

_GRACE_SECONDS = 10.0  # beyond what a worker may take to stop


class Supervisor:
    """`run` returns when it is told to stop, or with `once` when every worker is done.

    Nothing is kept here: whoever starts the same workers anew has the same fleet. Whose rows are whose is
    settled between them and Postgres, so a supervisor that is killed, whose workers end with it, loses
    nothing.
    """

    def __init__(
        self,
        members: Sequence[Member],
        command: Callable[[Member], Sequence[str]],
        *,
        once: bool = False,
        shutdown_seconds: float = 10.0,
    ) -> None:
        self._members = members
        self._command = command
        self._once = once
        self._patience = shutdown_seconds + _GRACE_SECONDS
        self._stopping = threading.Event()
        self._reloading = False
        self._deadline: float | None = None  # after which those that do not stop are killed
        self._is_ready = False
        self._told = ""
        self._watchdog = watchdog_seconds()

    def run(self) -> int:
        """Returns 0, or the exit code of a worker that failed for good."""
        heard, wake = socket.socketpair()
        with heard, wake:
            for channel in (heard, wake):
                channel.setblocking(False)
            self._handle_signals(wake)
            children = [Child(member, self._command(member), once=self._once) for member in self._members]
            try:
                with selectors.DefaultSelector() as selector:
                    for readable in (heard, *(child.channel for child in children)):
                        selector.register(readable, selectors.EVENT_READ)
                    self._keep(children, selector, heard)
            finally:
                signal.set_wakeup_fd(-1)
                for child in children:
                    child.close()
        code = code_of_all(child.code for child in children)
        return code if code >= 0 else 128 - code

    def stop(self) -> None:
        """Let every worker write what it has read, and end."""
        self._stopping.set()

    def _handle_signals(self, wake: socket.socket) -> None:
        """As those of a worker. Each wakes the loop, and so does the end of a child."""
        signals.handle(self.stop, self._reload, self._stopping)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)

    def _reload(self) -> None:
        self._reloading = True

    def _keep(
        self, children: Sequence[Child], selector: selectors.BaseSelector, heard: socket.socket
    ) -> None:
        while True:
            for child in children:
                child.advance()
            self._hand_on(children)
            if all(child.is_over for child in children):
                return
            self._tell(children)
            selector.select(self._seconds_until_due(children))
            try:
                heard.recv(4096)
            except BlockingIOError:
                pass

    def _hand_on(self, children: Sequence[Child]) -> None:
        """Signals, and an end that only its user can cure: then all are to end, unless it had run before and
        others go on."""
        if self._reloading:
            self._reloading = False
            for child in children:
                child.reload()
        goes_on = any(child.is_ready for child in children)
        ends = ((child, child.code if goes_on else child.code or child.fault) for child in children)
        hopeless = next(((child, code) for child, code in ends if code in HOPELESS), None)
        if hopeless is not None and not self._stopping.is_set():
            logger.error("{} {}: all workers end", hopeless[0].name, ending(hopeless[1]))
            self.stop()
        if self._stopping.is_set() and self._deadline is None:
            notify("STOPPING=1")
            self._deadline = time.monotonic() + self._patience
            for child in children:
                child.stop()
        elif self._deadline is not None and time.monotonic() > self._deadline:
            for child in children:
                child.send(signal.SIGKILL)

    def _tell(self, children: Sequence[Child]) -> None:
        """Tell systemd how all are. A worker that is stuck is killed here, so the sign of life is the
        loop's."""
        ready = sum(child.is_ready for child in children)
        if ready == len(children) and not self._is_ready:
            self._is_ready = True
            notify("READY=1")
            logger.info("{} workers run: {}", ready, ", ".join(f"{c.name} (pid {c.pid})" for c in children))
        asking = [child for child in children if child.take_asking()]
        if asking and not self._is_ready:
            ask_for_time()
        lacking = [f"{c.name} {c.status or 'begins'}" for c in children if not c.is_ready and not c.is_over]
        said = lacking or [next((child.status for child in children if child.status), "")]
        status = f"{ready} of {len(children)} workers run; {'; '.join(said)}"
        if status != self._told:
            show(status)
            self._told = status
        if self._watchdog is not None:
            notify("WATCHDOG=1")

    def _seconds_until_due(self, children: Sequence[Child]) -> float | None:
        due = [seconds for child in children if (seconds := child.seconds_until_due) is not None]
        if self._watchdog is not None:
            due.append(self._watchdog / 3)
        if self._deadline is not None:
            due.append(max(0.1, self._deadline - time.monotonic()))
        return min(due, default=None)
