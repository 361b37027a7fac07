"""A supervisor without a database: what becomes of all workers when one ends, and of them when it ends."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import is_running, until

# A supervisor of workers that are a few lines of Python, which know their names.
FLEET = """
import sys
from freshvec import logs
from freshvec.fleet import child, membership
from freshvec.fleet.member import Member
from freshvec.fleet.supervisor import Supervisor

once, count, program = sys.argv[1].startswith("once"), int(sys.argv[2]), sys.argv[3]
if sys.argv[1] == "impatient":
    child.WATCHDOG_SECONDS = 0.5
if sys.argv[1] == "once or twice":
    child.MOST_ATTEMPTS = 1
logs.configure()
members = [Member(number, {}) for number in range(count)]
python = "/nowhere/python" if sys.argv[1] == "absent" else sys.executable
command = lambda member: [python, "-c", program, membership.written(member.number), sys.argv[4]]
sys.exit(Supervisor(members, command, once=once).run())
"""
# Each leaves its process's number in a file of its name, says that it is ready, and waits for SIGTERM.
WAITS = """
import os, pathlib, signal, sys
from freshvec.fleet import membership
from freshvec.worker.sdnotify import notify

name, folder = f"w{membership.enter(sys.argv[1])}", pathlib.Path(sys.argv[2])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
signal.signal(signal.SIGHUP, lambda *_: (folder / f"{name}.read-again").touch())
(folder / f"{name}.new").write_text(str(os.getpid()))
(folder / f"{name}.new").rename(folder / name)
notify("READY=1")
notify(f"STATUS={name} is well")
while True:
    signal.pause()
"""
ALL_WELL = "STATUS=2 of 2 workers run; w0 is well"
DONE = """
import pathlib, sys

name, folder = "w" + sys.argv[1].partition("@")[0], pathlib.Path(sys.argv[2])
tries = len(list(folder.glob(f"{name}.*")))
(folder / f"{name}.{tries}").touch()
sys.exit(1 if name == "w1" and tries < int(folder.name) else 0)
"""


class Fleet:
    """A supervisor as a process, with the socket that systemd would listen at."""

    def __init__(self, folder: Path, how: str, count: int, program: str) -> None:
        self.folder = folder
        self.log = folder / "log"
        (folder / "tmp").mkdir()
        given = {"NOTIFY_SOCKET": str(folder / "notify"), "TMPDIR": str(folder / "tmp")}
        self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.channel.bind(str(folder / "notify"))
        self.heard: list[str] = []
        threading.Thread(target=self._hear, daemon=True).start()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", FLEET, how, str(count), program, str(folder)],
                stderr=log,
                env={**os.environ, **given, "WATCHDOG_USEC": "300000"},
                start_new_session=True,
            )

    def _hear(self) -> None:
        while True:
            try:
                self.heard += self.channel.recv(4096).decode().split("\n")
            except OSError:
                return

    def pid(self, name: str) -> int:
        try:
            return int((self.folder / name).read_text())
        except FileNotFoundError:
            return 0

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.channel.close()


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    made = tmp_path / str(getattr(request, "param", 0))
    made.mkdir()
    return made


@pytest.fixture
def waiting(folder: Path) -> Iterator[Fleet]:
    fleet = Fleet(folder, "for ever", 2, WAITS)
    yield fleet
    fleet.close()


def test_ready_when_all_are_then_signs_of_life_and_a_clean_end(waiting: Fleet) -> None:
    until("it is ready", lambda: "READY=1" in waiting.heard)
    assert waiting.pid("w0"), "both were before"
    assert waiting.pid("w1")
    until("its status is theirs", lambda: ALL_WELL in waiting.heard)
    before = waiting.heard.count("WATCHDOG=1")
    until("the watchdog hears it", lambda: waiting.heard.count("WATCHDOG=1") > before + 2)
    waiting.process.send_signal(signal.SIGHUP)
    until("both read again", lambda: all((waiting.folder / f"w{n}.read-again").exists() for n in (0, 1)))
    os.killpg(waiting.process.pid, signal.SIGINT)  # as a terminal does it, to all that is in its group
    assert waiting.process.wait(30) == 0, waiting.log.read_text()
    until("that is told", lambda: "STOPPING=1" in waiting.heard)
    assert not any(map(is_running, (waiting.pid("w0"), waiting.pid("w1"))))


def test_one_that_is_not_ready_reads_its_file_again_once_it_is(folder: Path) -> None:
    """Until it obeys the signal for that, it would end by it."""
    late = (
        'while not (folder / "go").exists():\n    signal.sigtimedwait([], 0.01)\nsignal.signal(signal.SIGHUP'
    )
    with closing(Fleet(folder, "for ever", 2, WAITS.replace("signal.signal(signal.SIGHUP", late))) as fleet:
        until("they are started", lambda: fleet.heard.count("WATCHDOG=1") > 1)
        fleet.process.send_signal(signal.SIGHUP)
        before = fleet.heard.count("WATCHDOG=1")
        until("it has gone on", lambda: fleet.heard.count("WATCHDOG=1") > before + 2)
        (folder / "go").touch()
        until("both read again", lambda: all((folder / f"w{n}.read-again").exists() for n in (0, 1)))
        assert "SIGHUP" not in fleet.log.read_text()


def test_it_is_not_ready_while_one_is_not(folder: Path) -> None:
    late = 'while name == "w1" and not (folder / "go").exists():\n    signal.sigtimedwait([], 0.01)\n'
    with closing(
        Fleet(folder, "for ever", 2, WAITS.replace('notify("READY=1")', f'{late}notify("READY=1")'))
    ) as fleet:
        until("one runs", lambda: any("1 of 2 workers run; w1" in line for line in fleet.heard))
        assert "READY=1" not in fleet.heard
        (folder / "go").touch()
        until("it is ready", lambda: "READY=1" in fleet.heard)


def test_more_time_is_asked_for_while_one_that_begins_asks(folder: Path) -> None:
    asks = 'from freshvec.worker.sdnotify import ask_for_time\nif name == "w1":\n    ask_for_time()\n'
    asks += '    while not (folder / "go").exists():\n        signal.sigtimedwait([], 0.01)\n'
    with closing(
        Fleet(folder, "for ever", 2, WAITS.replace('notify("READY=1")', f'{asks}notify("READY=1")'))
    ) as fleet:
        until("it is asked for", lambda: "EXTEND_TIMEOUT_USEC=180000000" in fleet.heard)
        before = fleet.heard.count("WATCHDOG=1")
        until("a while has passed", lambda: fleet.heard.count("WATCHDOG=1") > before + 2)
        asked = [line for line in fleet.heard if line.startswith("EXTEND")]
        assert len(asked) == 1, "one that begins and says nothing is ended after the unit's time"
        (folder / "go").touch()
        until("it is ready", lambda: "READY=1" in fleet.heard)


@pytest.mark.parametrize(("number", "name"), [(signal.SIGKILL, "SIGKILL"), (40, "signal 40")])
def test_one_that_ends_is_started_again_and_the_others_go_on(waiting: Fleet, number: int, name: str) -> None:
    """A signal without a name is one of those for real time."""
    until("all is well", lambda: ALL_WELL in waiting.heard)
    first, second = waiting.pid("w0"), waiting.pid("w1")
    os.kill(second, number)
    until("it is said", lambda: any(f"w1 was ended by {name}" in line for line in waiting.heard), 20)
    until("it was started again", lambda: waiting.pid("w1") != second)
    assert f"w1 was ended by {name}; it is started again in" in waiting.log.read_text()
    assert waiting.pid("w0") == first
    assert is_running(first)
    until("all is well again", lambda: waiting.heard.count(ALL_WELL) > 1)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_supervisor_that_is_killed_leaves_no_worker_behind(waiting: Fleet, stopped: bool) -> None:
    until("it is ready", lambda: "READY=1" in waiting.heard)
    pids = [waiting.pid("w0"), waiting.pid("w1")]
    if stopped:
        os.kill(pids[0], signal.SIGSTOP)
    waiting.process.kill()
    waiting.process.wait(30)
    until("they have ended", lambda: not any(map(is_running, pids)))
    assert list((waiting.folder / "tmp").iterdir()) == [], "nor a file"


def test_a_worker_whose_supervisor_has_gone_does_not_begin(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WAITS, f"0@{2**22 + 1}", str(folder)], check=False)
    assert done.returncode == 128 + signal.SIGKILL
    assert not (folder / "w0").exists()


def test_one_that_gives_no_sign_of_life_is_killed_and_the_others_go_on(folder: Path) -> None:
    pings = WAITS.replace("    signal.pause()", "    notify('WATCHDOG=1')\n    time.sleep(0.05)")
    stuck = pings.replace("while True:", "while name == 'w0' or not (folder / 'once').exists():")
    silent = f"import time\n{stuck}\nsignal.pause()"
    with closing(Fleet(folder, "impatient", 2, silent)) as fleet:
        until("it is ready", lambda: "READY=1" in fleet.heard)
        first, second = fleet.pid("w0"), fleet.pid("w1")
        (folder / "once").touch()
        until("it is killed", lambda: "w1 gave no sign of life" in fleet.log.read_text())
        (folder / "once").unlink()
        until("it is started again", lambda: fleet.pid("w1") != second)
        assert fleet.pid("w0") == first
        assert is_running(first)


def test_what_cannot_be_started_is_tried_again(folder: Path) -> None:
    with closing(Fleet(folder, "absent", 1, DONE)) as fleet:
        until("it is said", lambda: "w0 cannot be started: No such file" in fleet.log.read_text())
        until("it is tried again", lambda: "it is started again in" in fleet.log.read_text())
        assert fleet.process.poll() is None


@pytest.mark.parametrize("code", [2, 78])
def test_what_only_its_user_can_cure_ends_all(folder: Path, code: int) -> None:
    program = WAITS.replace('notify("READY=1")', f'name == "w1" and sys.exit({code})\nnotify("READY=1")')
    with closing(Fleet(folder, "for ever", 2, program)) as fleet:
        assert fleet.process.wait(30) == code
        assert f"w1 ended with {code}: all workers end" in fleet.log.read_text()
        assert not is_running(fleet.pid("w0"))
        assert ALL_WELL not in fleet.heard


def test_a_fault_that_came_later_ends_nobody_who_runs(folder: Path) -> None:
    ready, broken = 'notify("READY=1")', folder / "broken"
    program = WAITS.replace(ready, f'(folder / "broken").exists() and sys.exit(78)\n{ready}')
    with closing(Fleet(folder, "for ever", 2, program)) as fleet:
        until("all is well", lambda: ALL_WELL in fleet.heard)
        broken.touch()
        first = fleet.pid("w0")
        os.kill(fleet.pid("w1"), signal.SIGKILL)
        until("it is tried again", lambda: "w1 ended with 78; it is started again" in fleet.log.read_text())
        assert is_running(first)
        broken.unlink()
        until("all is well again", lambda: fleet.heard.count(ALL_WELL) > 1)
        broken.touch()
        for name in ("w0", "w1"):
            os.kill(fleet.pid(name), signal.SIGKILL)
        assert fleet.process.wait(60) == 78, "nobody goes on"


@pytest.mark.parametrize("folder", [0, 1], indirect=True)
def test_those_that_work_once_end_it_when_all_are_done(folder: Path) -> None:
    """The folder's name is how often the second fails before."""
    with closing(Fleet(folder, "once", 3, DONE)) as fleet:
        assert fleet.process.wait(60) == 0
    again = {"w1.1"} if folder.name == "1" else set()
    assert {path.name for path in folder.glob("w*.*")} == {"w0.0", "w1.0", "w2.0"} | again


@pytest.mark.parametrize("folder", [2], indirect=True)
def test_one_that_fails_time_after_time_is_given_up_and_that_is_said(folder: Path) -> None:
    with closing(Fleet(folder, "once or twice", 2, DONE)) as fleet:
        assert fleet.process.wait(60) == 1
        assert "w1 ended with 1, time after time: it is not started again" in fleet.log.read_text()
        assert {path.name for path in folder.glob("w*.*")} == {"w0.0", "w1.0", "w1.1"}


def test_a_second_signal_ends_all_at_once(folder: Path) -> None:
    with closing(
        Fleet(folder, "for ever", 2, WAITS.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN"))
    ) as fleet:
        until("it is ready", lambda: "READY=1" in fleet.heard)
        fleet.process.send_signal(signal.SIGINT)
        until("it is heard", lambda: "finishing what is under way" in fleet.log.read_text())
        fleet.process.send_signal(signal.SIGINT)
        assert fleet.process.wait(30) == 128 + signal.SIGINT
        pids = [fleet.pid("w0"), fleet.pid("w1")]
        until("they have ended", lambda: not any(map(is_running, pids)))
