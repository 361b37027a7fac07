"""Who the workers of a fleet are: how many, and what each is given of cores, GPUs and addresses."""

import os
import sys
from pathlib import Path

import pytest

from freshvec.config import Settings
from freshvec.encoding.machine import cpu_limit, visible_gpus
from freshvec.errors import DeviceError, UsageError
from freshvec.fleet import membership
from freshvec.fleet.member import become, members

CORES = cpu_limit()


def settings(**daemon: object) -> Settings:
    return Settings.model_validate({"daemon": daemon, "web": {"address": "127.0.0.1:1"}})


def given(name: str, workers: str, **daemon: object) -> list[str | None]:
    return [member.environment.get(name) for member in members(settings(**daemon), workers)]


def test_cores_are_divided_unless_threads_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert given("FRESHVEC_DAEMON_THREADS", "1") == [str(CORES)]
    assert given("FRESHVEC_DAEMON_THREADS", "2") == [str(max(1, CORES // 2))] * 2
    assert given("FRESHVEC_DAEMON_THREADS", "99") == ["1"] * 99
    assert given("FRESHVEC_DAEMON_THREADS", "2", threads=7) == [None, None], "each has what the file says"
    assert given("CUDA_VISIBLE_DEVICES", "2") == [None, None]
    assert [member.name for member in members(settings(), "3")] == ["w0", "w1", "w2"]


def test_each_gpu_has_a_worker_or_the_workers_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-8f, -1, 5")
    assert visible_gpus() == ["3", "GPU-8f"], "as CUDA reads it"
    assert given("CUDA_VISIBLE_DEVICES", "per-gpu") == ["3", "GPU-8f"]
    assert given("FRESHVEC_DAEMON_DEVICE", "per-gpu") == ["cuda", "cuda"], "never the CPU unnoticed"
    assert given("FRESHVEC_DAEMON_DEVICE", "per-gpu", device="tensorrt") == ["tensorrt", "tensorrt"]
    assert given("CUDA_VISIBLE_DEVICES", "3") == ["3", "GPU-8f", "3"]
    assert given("FRESHVEC_DAEMON_DEVICE", "3") == ["auto"] * 3
    assert given("CUDA_VISIBLE_DEVICES", "2", device="cuda:1") == [None, None], "it names the one for both"
    assert given("CUDA_VISIBLE_DEVICES", "2", device="cpu") == [None, None]


@pytest.mark.parametrize(
    ("visible", "device", "message"),
    [
        ("", "auto", "CUDA_VISIBLE_DEVICES names none"),
        ("0,1", "cpu", 'device = "cpu" is set'),
        ("0,1", "cuda:1", 'device = "cuda:1" is set'),
    ],
)
def test_without_a_gpu_for_each_it_says_why(
    visible: str, device: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(DeviceError, match=f"cannot start a worker on each GPU: {message}.*with a number"):
        members(settings(device=device), "per-gpu")


def test_gpus_are_counted_without_nvidias_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert visible_gpus(tmp_path) == ["0", "1"]


@pytest.mark.parametrize("workers", ["0", "-1", "two", "per-core", ""])
def test_a_number_of_workers_is_a_number(workers: str) -> None:
    with pytest.raises(UsageError, match="write a number of workers, or per-gpu"):
        members(settings(), workers)


def test_all_share_and_the_first_alone_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    both = settings(serve="127.0.0.1:2")
    other = become(both, 1)
    assert (other.web.address, other.daemon.serve, other.daemon.share) == ("off", None, True)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"
    first = become(both, 0)
    assert (first.web, first.daemon.serve, first.daemon.share) == (both.web, "127.0.0.1:2", True)


def test_a_number_is_a_number() -> None:
    assert membership.enter("3") == 3, "one that a unit starts"
    for member in ("w0", "-1", "1@", "one"):
        with pytest.raises(UsageError, match="write this worker's number, from 0"):
            membership.enter(member)
