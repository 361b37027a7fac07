"""Cutting a CUDA library down to one GPU's code: the rest is zeros, and not a byte moves."""

import struct
from pathlib import Path

from tests.benchmarks.gpu.slim import codes, slim


def code(arch: int, body: bytes) -> bytes:
    """One piece of machine code with its head."""
    head = struct.pack("<HHIQIIHHI", 2, 0x101, 64, len(body), 0, 0, 0, 0, arch)
    return head.ljust(64, b"\0") + body


def fat(*pieces: bytes) -> bytes:
    """A fat binary of such pieces."""
    inside = b"".join(pieces)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(inside)) + inside


def test_only_the_code_of_one_gpu_is_left_and_what_was_named_goes_too(tmp_path: Path) -> None:
    ours, other, unwanted = b"_Z4keep code " * 3, b"_Z5other code " * 3, b"_Z10moe_kernel x " * 3
    library = tmp_path / "library.so"
    library.write_bytes(
        b"before" + fat(code(80, other), code(90, ours)) + b"between" + fat(code(90, unwanted))
    )
    size = library.stat().st_size
    assert slim(library, 90, "moe") == (len(ours) + len(other) + len(unwanted), len(ours))
    data = library.read_bytes()
    assert len(data) == size
    assert data.count(ours) == 1
    assert other not in data
    assert unwanted not in data
    assert data.startswith(b"before")
    assert b"between" in data
    assert [found.arch for found in codes(data)] == [80, 90, 90]
