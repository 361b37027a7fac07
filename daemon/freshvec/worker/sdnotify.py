"""systemd's notification protocol (sd_notify(3)): one datagram to $NOTIFY_SOCKET."""

import errno
import os
import socket
import threading

from freshvec import logs

TIME_ASKED = "EXTEND_TIMEOUT_USEC="
_FOR_NOW = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)  # no descriptor or memory is left
# In their order, by what they are about: a later one takes the place of an earlier one.
_unsaid: dict[str, str] = {}
_saying = threading.Lock()


def is_supervised() -> bool:
    """Whether somebody listens to what `notify` says."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


def notify(message: str) -> None:
    """Tell systemd, e.g. `READY=1`. Does nothing where no supervisor listens.

    What a busy one does not take is said again before the next message: of a worker whose `READY=1` was never
    heard the start would be ended.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    about = message.partition("=")[0]
    with _saying:
        _unsaid.pop(about, None)
        _unsaid[about] = message
        while _unsaid and _is_taken(_unsaid[first := next(iter(_unsaid))], address):
            del _unsaid[first]


def _is_taken(message: str, address: str) -> bool:
    """Whether nobody is to be told any more, since a supervisor has it, or went away, which is no reason to
    stop."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.settimeout(1.0)  # a supervisor that does not read must not hold the worker up
            # Only one that is connected waits for room without asking over and over.
            channel.connect("\0" + address[1:] if address.startswith("@") else address)
            channel.send(message.encode())
    except TimeoutError:
        return False
    except OSError as error:
        return error.errno not in _FOR_NOW
    return True


def ask_for_time() -> None:
    """Have a start that takes long not be ended (TimeoutStartSec): as much again from now on.

    That is for a pause of half a minute, and an attempt at each of several hosts.
    """
    notify(f"{TIME_ASKED}180000000")


def show(status: str) -> None:
    """The line of `systemctl status`, which others may read: without secrets."""
    notify(f"STATUS={' '.join(logs.redact(status).split())}")


def watchdog_seconds() -> float | None:
    """How often systemd wants a sign of life; None where it does not watch this process."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC")
    return int(microseconds) / 1e6 if microseconds else None
