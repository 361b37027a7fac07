"""sd_notify: the datagrams arrive, and nothing goes wrong where nobody listens."""

import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from freshvec.worker.sdnotify import notify, show, watchdog_seconds


@pytest.fixture(params=["path", "abstract"])
def supervisor(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """A supervisor's socket, at a path or in the abstract namespace, whose leading NUL is written as @."""
    address = (
        str(tmp_path / "notify")
        if request.param == "path"
        else f"\0freshvec-{os.getpid()}-{time.monotonic_ns()}"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(address)
        bound.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", address.replace("\0", "@"))
        yield bound


def test_each_message_is_one_datagram(supervisor: socket.socket) -> None:
    notify("READY=1\nSTATUS=listening – größer")
    notify("STOPPING=1")
    assert supervisor.recv(1000).decode() == "READY=1\nSTATUS=listening – größer"
    assert supervisor.recv(1000) == b"STOPPING=1"


def test_the_status_is_one_line_without_secrets(supervisor: socket.socket) -> None:
    show("waiting: no route to postgresql://u:status-line@h/d\n\tCheck that it runs.")
    assert supervisor.recv(1000).decode() == (
        "STATUS=waiting: no route to postgresql://u:***@h/d Check that it runs."
    )


def test_no_file_descriptor_is_kept(supervisor: socket.socket) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        notify("WATCHDOG=1")
        supervisor.recv(1000)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("address", [None, "", "/nowhere/at/all", "@nobody-listens-here", "/" + "x" * 200])
def test_where_nobody_listens_nothing_happens(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    if address is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")


def test_where_no_descriptor_is_left_it_is_said_later(supervisor: socket.socket) -> None:
    """As while many clients are connected to the page: the worker works on."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        notify("READY=1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    notify("WATCHDOG=1")
    assert heard(supervisor, b"WATCHDOG=1") == [b"READY=1", b"WATCHDOG=1"]


def fill(supervisor: socket.socket) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, suppress(BlockingIOError):
        other.setblocking(False)
        while True:
            other.sendto(b"full", supervisor.getsockname())


def heard(supervisor: socket.socket, last: bytes) -> list[bytes]:
    """What came after what filled it."""
    received = [supervisor.recv(1000)]
    while received[-1] != last:
        received.append(supervisor.recv(1000))
    return [message for message in received if message != b"full"]


def test_a_supervisor_that_does_not_read_holds_nobody_up(supervisor: socket.socket) -> None:
    fill(supervisor)
    began = time.process_time()
    notify("WATCHDOG=1")  # returns, though without a listener's ear
    assert time.process_time() - began < 0.5, "it slept meanwhile"
    supervisor.recv(1000)
    notify("WATCHDOG=1")
    assert heard(supervisor, b"WATCHDOG=1") == [b"WATCHDOG=1"]


def test_what_a_busy_supervisor_did_not_take_is_said_again(supervisor: socket.socket) -> None:
    """In its order, and only what is still so."""
    fill(supervisor)
    for message in ("READY=1", "STATUS=beginning", "WATCHDOG=1", "STATUS=all is fresh"):
        notify(message)
    supervisor.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            assert supervisor.recv(1000) == b"full"
    supervisor.settimeout(10)
    notify("WATCHDOG=1")
    assert heard(supervisor, b"WATCHDOG=1") == [b"READY=1", b"STATUS=all is fresh", b"WATCHDOG=1"]


@pytest.mark.parametrize(
    ("microseconds", "pid", "seconds"),
    [
        (None, None, None),
        ("", None, None),
        ("180000000", None, 180.0),
        ("500000", "own", 0.5),
        ("500000", "1", None),
    ],
)
def test_the_watchdog_is_this_process_s_own(
    monkeypatch: pytest.MonkeyPatch, microseconds: str | None, pid: str | None, seconds: float | None
) -> None:
    for name, value in (
        ("WATCHDOG_USEC", microseconds),
        ("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid),
    ):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert watchdog_seconds() == seconds
