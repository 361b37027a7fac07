"""One worker as a process: started, heard, and started again with growing pauses when it ends."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence

from loguru import logger

from freshvec.backoff import Backoff
from freshvec.errors import CONFIGURATION
from freshvec.fleet.member import Member
from freshvec.worker.sdnotify import TIME_ASKED

HOPELESS = (2, CONFIGURATION)  # what only its user can cure: the units do not start it again either
WATCHDOG_SECONDS = 180.0  # without a sign of life from its main loop for so long, it is killed
SOUND_SECONDS = 60.0  # after so long the next end is the first one
MOST_ATTEMPTS = 10  # in a row, of one that is to work once


class Child:
    """`code` is what it ended with, once it is not to be started any more. `fault` is what only its user can
    cure, of one that had run before: it is tried again, as long as others go on."""

    def __init__(self, member: Member, command: Sequence[str], *, once: bool) -> None:
        """It notifies as systemd is notified (sd_notify(3)), at a socket that it has as a descriptor: a file
        would stay where the supervisor is killed, and an abstract address is open to every user."""
        self.name = member.name
        self.is_ready = False
        self.status = ""
        self.code: int | None = None
        self.fault: int | None = None
        self._command = command
        self._once = once
        self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        with tempfile.TemporaryDirectory(prefix="freshvec-") as folder:
            self.channel.bind(f"{folder}/notify")
            self._address = os.open(f"{folder}/notify", os.O_PATH)
        self._environment = {
            **{name: value for name, value in os.environ.items() if name != "WATCHDOG_PID"},
            **member.environment,
            "NOTIFY_SOCKET": f"/proc/self/fd/{self._address}",
            "WATCHDOG_USEC": str(int(WATCHDOG_SECONDS * 1e6)),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._backoff = Backoff(first=1.0, cap=60.0)
        self._due: float | None = 0.0  # when to start it; None while it runs
        self._started = self._heard = 0.0
        self._has_run = False
        self._is_stopping = self._asks_for_time = self._is_to_reload = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def is_over(self) -> bool:
        """Whether it has ended for good."""
        return self._process is None and (self.code is not None or self._is_stopping)

    @property
    def seconds_until_due(self) -> float | None:
        """Until it is started again, or was silent for too long; None where nothing is due."""
        if self._due is not None:
            return max(0.0, self._due - time.monotonic())
        if self.is_ready:
            return max(0.0, self._heard + WATCHDOG_SECONDS - time.monotonic())
        return None

    def advance(self) -> None:
        """Take up what has happened: what it says, its end, the end of a pause."""
        self._listen()
        if self._process is not None:
            self._look_after(self._process)
        if self._process is None and self._due is not None and time.monotonic() >= self._due:
            self._start()

    def take_asking(self) -> bool:
        """Whether it has asked for more time to begin since the last call."""
        asks, self._asks_for_time = self._asks_for_time, False
        return asks

    def stop(self) -> None:
        """Let it write what it has read, and not start it again."""
        self._is_stopping, self._due = True, None
        if self._process is None and self.code is None:
            self.code = self.fault
        self.send(signal.SIGTERM)

    def send(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def reload(self) -> None:
        """Have it read its file again, once it obeys the signal for that: before, it would end by it."""
        self._is_to_reload = not self.is_ready
        if self.is_ready:
            self.send(signal.SIGHUP)

    def close(self) -> None:
        """Whatever it is at."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.channel.close()
        os.close(self._address)

    def _start(self) -> None:
        self._due, self.is_ready, self.status = None, False, ""
        self._started = self._heard = time.monotonic()
        try:
            # In a session of its own: a terminal's Ctrl-C is for the supervisor, which hands it on.
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[self._address],
            )
        except OSError as error:  # such as too many processes
            logger.error("{} cannot be started: {}", self.name, error.strerror)
            self._ended(1)

    def _listen(self) -> None:
        while True:
            try:
                lines = self.channel.recv(65536).decode(errors="replace").split("\n")
            except BlockingIOError:
                return
            self._heard = time.monotonic()
            if "READY=1" in lines:
                self.is_ready, self._has_run, self.fault = True, True, None
            if self.is_ready and self._is_to_reload:
                self.reload()
            self._asks_for_time |= any(line.startswith(TIME_ASKED) for line in lines)
            for line in lines:
                if line.startswith("STATUS="):
                    self.status = line.removeprefix("STATUS=")

    def _look_after(self, process: subprocess.Popen[bytes]) -> None:
        code = process.poll()
        if code is not None:
            self._ended(code)
        elif self.is_ready and time.monotonic() - self._heard > WATCHDOG_SECONDS:
            logger.error("{} gave no sign of life for {:.0f} s: killed", self.name, WATCHDOG_SECONDS)
            process.kill()
            self._heard = time.monotonic()

    def _ended(self, code: int) -> None:
        self._process, self.is_ready = None, False
        if time.monotonic() - self._started > SOUND_SECONDS:
            self._backoff.reset()
        is_last = self._once and (code == 0 or self._backoff.attempts >= MOST_ATTEMPTS)
        if self._is_stopping and code == -signal.SIGTERM:
            code = 0  # it was told to stop before it had begun
        self.fault = code if code in HOPELESS else None
        if self._is_stopping or (self.fault and not self._has_run) or is_last:
            self.code, self._due = code, None
            if is_last and code and not self._is_stopping:
                logger.error("{} {}, time after time: it is not started again", self.name, ending(code))
            return
        delay = self._backoff.next_delay()
        self._due = time.monotonic() + delay
        self.status = f"{ending(code)}, to be started again"
        logger.warning("{} {}; it is started again in {:.1f} s", self.name, ending(code), delay)


def ending(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with {code}"
    names = {int(number): number.name for number in signal.Signals}  # most real-time signals have none
    return f"was ended by {names.get(-code, f'signal {-code}')}"


def code_of_all(codes: Iterable[int | None]) -> int:
    """0, or the code of one that failed for good: what only its user can cure before anything else."""
    failed = [code for code in codes if code]
    return next((code for code in failed if code in HOPELESS), failed[0] if failed else 0)
