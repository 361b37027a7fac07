"""Cores by affinity and cgroup, versions 2 and 1, nested."""

import os
from pathlib import Path

import pytest

from freshvec.encoding.machine import cpu_limit, processor

CORES = 64


@pytest.fixture(autouse=True)
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(CORES)))


def cgroups(folder: Path, membership: str, files: dict[str, str]) -> int:
    """The limit found in a cgroup file system of these files, for a process of that membership."""
    for name, text in files.items():
        path = folder / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "membership").write_text(membership)
    return cpu_limit(folder / "membership", folder / "cgroup")


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "max 100000\n"}, CORES),
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000", "a/b/cpu.max": "max 100000"}, 4),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000", "a/b/cpu.max": "300000 100000"}, 3),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "800000 100000"}, 3),
        ("0::/host/path/of/the/container\n", {"cpu.max": "500000 100000"}, 5),
        ("0::/../outside\n", {"cpu.max": "500000 100000"}, 5),
        (
            "4:memory:/a\n2:cpu,cpuacct:/a\n0::/a\n",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "150000\n", "cpu,cpuacct/a/cpu.cfs_period_us": "50000\n"},
            3,
        ),
        ("1:cpu:/a/b\n", {"cpu/a/cpu.cfs_quota_us": "200000", "cpu/a/cpu.cfs_period_us": "100000"}, 2),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, CORES),
        ("1:cpu:/docker/abc\n", {"cpu/cpu.cfs_quota_us": "600000", "cpu/cpu.cfs_period_us": "100000"}, 6),
        (
            "1:cpuset:/a\n",
            {"cpuset/a/cpu.cfs_quota_us": "100000", "cpuset/a/cpu.cfs_period_us": "100000"},
            CORES,
        ),
        ("0::/\n", {"cpu.max": "what is this"}, CORES),
    ],
)
def test_the_smallest_quota_on_the_way_up_counts(
    tmp_path: Path, membership: str, files: dict[str, str], cores: int
) -> None:
    assert cgroups(tmp_path, membership, files) == cores


def test_without_cgroups_it_is_the_affinity(tmp_path: Path) -> None:
    assert cpu_limit(tmp_path / "none", tmp_path) == CORES


def test_here_it_is_between_one_and_the_affinity() -> None:
    assert 1 <= cpu_limit() <= CORES


def test_the_processor_is_named_with_what_it_can_do(tmp_path: Path) -> None:
    said = tmp_path / "cpuinfo"
    said.write_text("processor\t: 0\nmodel name\t: A Chip\nflags\t\t: fpu amx_bf16\n\nprocessor\t: 1\n")
    assert processor(said) == ("A Chip", frozenset({"fpu", "amx_bf16"}))
    name, sets = processor(tmp_path / "missing")
    assert name
    assert not sets
