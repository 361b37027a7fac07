"""systemd's notification protocol (sd_notify(3)): one datagram to $NOTIFY_SOCKET."""

import os
import socket

from freshvec import logs

TIME_ASKED = "EXTEND_TIMEOUT_USEC="


def is_supervised() -> bool:
    """Whether somebody listens to what `notify` says."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


def notify(message: str) -> None:
    """Tell systemd, e.g. `READY=1`. Does nothing where no supervisor listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.settimeout(1.0)  # a supervisor that does not read must not hold the worker up
        try:
            channel.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError:
            pass  # a supervisor that went away is no reason to stop


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
