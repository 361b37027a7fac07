"""What each worker of a fleet is given: a name, its part of the cores, and a GPU where there are any."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from freshvec.config import Daemon, Settings
from freshvec.encoding.machine import cpu_limit, visible_gpus
from freshvec.environment import PREFIX
from freshvec.errors import DeviceError, UsageError

PER_GPU = "per-gpu"
_OPEN = ("auto", "cuda", "tensorrt")  # devices that name neither the CPU nor one GPU


@dataclass(frozen=True)
class Member:
    """One worker. `environment` is what it has beside its supervisor's."""

    number: int
    environment: dict[str, str]

    @property
    def name(self) -> str:
        return name_of(self.number)


def name_of(number: int) -> str:
    """As its log lines call it."""
    return f"w{number}"


def number_of(workers: str) -> int:
    """How many are asked for. Raises UsageError."""
    if not re.fullmatch(r"[1-9]\d{0,3}", workers):
        fault = f"--workers {workers}: write a number of workers, or {PER_GPU} for one on each GPU"
        raise UsageError(fault)
    return int(workers)


def members(settings: Settings, workers: str) -> list[Member]:
    """As many as asked for: a number, or `per-gpu`. Raises UsageError, DeviceError."""
    daemon = settings.daemon
    gpus = _gpus(daemon)
    device = daemon.device
    if workers == PER_GPU:
        _refuse_without_gpu(daemon, gpus)
        count = len(gpus)
        device = "cuda" if device == "auto" else device  # never the CPU, if one of them does not work
    else:
        count = number_of(workers)
    shared = {f"{PREFIX}DAEMON_DEVICE": device}
    if daemon.threads is None:
        shared[f"{PREFIX}DAEMON_THREADS"] = str(max(1, cpu_limit() // count))
    return [Member(number, shared | _gpu(gpus, number)) for number in range(count)]


def become(settings: Settings, number: int) -> Settings:
    """Make this process the worker of that number; its settings. To be called before CUDA is loaded.

    The first alone serves the page and the endpoint, since an address has room for one.
    """
    os.environ.update(_gpu(_gpus(settings.daemon), number))
    daemon, web = settings.daemon.model_copy(update={"share": True}), settings.web
    if number:
        daemon = daemon.model_copy(update={"serve": None})
        web = web.model_copy(update={"address": "off"})
    return settings.model_copy(update={"daemon": daemon, "web": web})


def _gpus(daemon: Daemon) -> list[str]:
    """Those to choose from: none where the file names the CPU, or one of them."""
    return visible_gpus() if daemon.device in _OPEN else []


def _gpu(gpus: Sequence[str], number: int) -> dict[str, str]:
    """A worker sees one GPU alone, so it finds it under the number 0."""
    return {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}


def _refuse_without_gpu(daemon: Daemon, gpus: Sequence[str]) -> None:
    what, remedy = "a worker on each GPU", "Write --workers with a number."
    if daemon.device not in _OPEN:
        raise DeviceError(
            "start", what, f'device = "{daemon.device}" is set', f'{remedy} Or set device = "auto".'
        )
    if not gpus and "CUDA_VISIBLE_DEVICES" in os.environ:
        raise DeviceError("start", what, "CUDA_VISIBLE_DEVICES names none", remedy)
    if not gpus:
        raise DeviceError("start", what, "there is no NVIDIA GPU that this process may use", remedy)
