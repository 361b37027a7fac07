"""What this machine gives a process: its processor and cores, and the memory of a GPU."""

import hashlib
import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class DeviceMemory:
    """A GPU's memory in GB (10⁹ bytes), of all processes together."""

    free: float
    total: float

    @property
    def used(self) -> float:
        """GB in use."""
        return self.total - self.free


@cache
def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, frozenset[str]]:
    """Its name, and its instruction sets as Linux names them; no sets where Linux does not say."""
    try:
        lines = cpuinfo.read_text().split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return said.get("model name", platform.machine()), frozenset(said.get("flags", "").split())


def machine() -> str:
    """What a measured speed belongs to: the processor, its instruction sets, and the cores of this process.

    In a virtual machine the name alone tells little: two chips of different kinds bear the same.
    """
    name, sets = processor()
    known = hashlib.sha256(" ".join(sorted(sets)).encode()).hexdigest()[:8]
    return f"{name} ({known}), {cpu_limit()} cores"


def multiplies_bf16() -> bool:
    """Whether the processor itself multiplies matrices in bf16, many times as fast as in fp32."""
    return "amx_bf16" in processor()[1]


def cpu_limit(membership: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores this process may use: the scheduler's affinity, cut by the smallest quota of a cgroup it is in.

    The host's count would be wrong in a container: the kernel stops threads beyond the quota all at once, and
    each waits for all.
    """
    cores = len(os.sched_getaffinity(0))
    quotas = [quota for folder in _cpu_cgroups(membership, mount) if (quota := _quota(folder)) is not None]
    return max(1, min([cores, *map(round, quotas)]))


def _cpu_cgroups(membership: Path, mount: Path) -> list[Path]:
    """The folders of this process's CPU cgroup and of its parents, version 2 or 1.

    A container may see its own cgroup as the root of the mount while its membership names the host's path.
    The root is always among the folders, and a folder that is not there has no quota.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = mount / controllers if controllers else mount
        inner = Path(path.lstrip("/"))
        folders += [root / part for part in (inner, *inner.parents)]
    return folders


def _quota(folder: Path) -> float | None:
    """Cores a cgroup may use, None where nothing limits it."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{part}_us").read_text().strip() for part in ("quota", "period")
            )
        return None if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def gpu_memory(device: str) -> DeviceMemory | None:
    """The memory of a device such as `cuda:1`; None for the CPU, and where NVIDIA's library cannot tell."""
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return None
    visible = [part for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part]
    place = int(number or 0)
    # The library counts all GPUs, also those that this process may not see.
    identity = visible[place].strip() if place < len(visible) else str(place)
    try:
        import pynvml  # it comes with freshvec[gpu]
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()  # again costs nothing
        found = pynvml.nvmlDeviceGetMemoryInfo(_handle(pynvml, identity))
    except (pynvml.NVMLError, LookupError):
        return None
    return DeviceMemory(int(found.free) / 1e9, int(found.total) / 1e9)


def visible_gpus(devices: Path = Path("/dev")) -> list[str]:
    """The GPUs that this process may use, each as CUDA_VISIBLE_DEVICES names it; that wins where it is
    set."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        listed = [part.strip() for part in named.split(",") if part.strip()]
        return listed[: listed.index("-1")] if "-1" in listed else listed  # CUDA stops there
    try:
        import pynvml

        pynvml.nvmlInit()
        count = int(pynvml.nvmlDeviceGetCount())
    except ImportError:
        count = sum(path.name.removeprefix("nvidia").isdecimal() for path in devices.glob("nvidia*"))
    except pynvml.NVMLError:
        count = 0
    return [str(number) for number in range(count)]


def _handle(nvml: Any, identity: str) -> Any:
    """A GPU by its number, its UUID, the beginning of that, or the UUID of a part of one.

    Raises NVMLError, LookupError.
    """
    if identity.isdecimal():
        return nvml.nvmlDeviceGetHandleByIndex(int(identity))
    for place in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(place)
        if nvml.nvmlDeviceGetUUID(handle).startswith(identity):
            return handle
    if not identity.startswith("MIG"):
        raise LookupError(identity)
    return nvml.nvmlDeviceGetHandleByUUID(identity)
