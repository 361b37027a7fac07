"""Cuts a CUDA library down to one GPU's machine code: `python -m tests.benchmarks.gpu.slim FILE.so [--arch
90]`.

A wheel carries its kernels for every GPU. Those for others are overwritten with zeros where they lie, which
leaves every offset as it was and shrinks the file to a third once compressed: enough to bring it to a machine
without a network. What an encoder never calls can go as well (`--without moe`): a kernel's code is loaded at
its first call.
"""

import argparse
import re
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MAGIC = struct.pack("<IHH", 0xBA55ED50, 1, 16)  # a fat binary of version 1, its head 16 bytes long
_ZSTD = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class Code:
    """Machine code of one source file for one architecture."""

    arch: int
    start: int
    size: int


def codes(data: bytes) -> Iterator[Code]:
    """Every piece of machine code in a library, by the heads of its fat binaries."""
    place = 0
    while (place := data.find(_MAGIC, place)) >= 0:
        (size,) = struct.unpack_from("<Q", data, place + 8)
        entry, end = place + 16, place + 16 + size
        while entry < end:
            head, length = struct.unpack_from("<IQ", data, entry + 4)
            (arch,) = struct.unpack_from("<I", data, entry + 28)
            yield Code(arch, entry + head, length)
            entry += head + length
        place = end


def _names(code: bytes) -> bytes:
    """Machine code unpacked, so that the names of its kernels can be looked for."""
    if not code.startswith(_ZSTD):
        return code
    return subprocess.run(["zstd", "-dc"], input=code, capture_output=True, check=False).stdout


def slim(path: Path, arch: int, without: str | None) -> tuple[int, int]:
    """Overwrite what is not needed; bytes of machine code before and after."""
    data = bytearray(path.read_bytes())
    whole = left = 0
    in_a_name = rb"_Z\w*(?:" + (without or "").encode() + rb")"
    unwanted = re.compile(in_a_name) if without else None
    for code in codes(bytes(data)):
        whole += code.size
        body = bytes(data[code.start : code.start + code.size])
        if code.arch != arch or (unwanted and unwanted.search(_names(body))):
            data[code.start : code.start + code.size] = bytes(code.size)
        else:
            left += code.size
    path.write_bytes(data)
    return whole, left


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", type=Path)
    parser.add_argument("--arch", type=int, default=90)
    parser.add_argument("--without", help="a regular expression: kernels that may go too")
    given = parser.parse_args()
    whole, left = slim(given.library, given.arch, given.without)
    print(f"{given.library.name}: {left / 1e6:.0f} of {whole / 1e6:.0f} MB of machine code left")


if __name__ == "__main__":
    main()
