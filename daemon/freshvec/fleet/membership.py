"""A worker's side of its supervisor: it ends when the process ends that started it, however that ends."""

import ctypes
import os
import re
import signal

from freshvec.errors import UsageError

_PR_SET_PDEATHSIG = 1  # of prctl(2)


def written(number: int) -> str:
    """What a supervisor writes behind `--member`: the worker's number, and whose it is."""
    return f"{number}@{os.getpid()}"


def is_led(member: str | None) -> bool:
    """Whether a supervisor wrote it."""
    return member is not None and "@" in member


def enter(member: str) -> int:
    """This worker's number; where `member` names a process, too, this one ends with that. Raises UsageError.

    The kernel's signal reaches a process that is stopped or stuck, too, which a thread of its own would not.
    """
    matched = re.fullmatch(r"(\d{1,4})(?:@(\d+))?", member)
    if matched is None:
        fault = f"--member {member}: write this worker's number, from 0"
        raise UsageError(fault)
    if matched[2] is not None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != int(matched[2]):  # it ended before the kernel was told
            os._exit(128 + signal.SIGKILL)
    return int(matched[1])
