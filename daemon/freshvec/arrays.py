"""Numbers in the binary form that Postgres reads: hundreds of times faster than as text."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

# Of numpy's types: the oids of Postgres's type and of its array, and the form of a number.
_TYPES = {
    np.dtype(np.float32): (700, 1021, ">f4"),
    np.dtype(np.int32): (23, 1007, ">i4"),
    np.dtype(np.int64): (20, 1016, ">i8"),
}
_TEXT = 25  # its oid
_SIZE = struct.Struct("!i")


@dataclass(frozen=True)
class NumberArray:
    """An array of one dimension as a query's parameter: `real[]`, `int[]` or `bigint[]`, by numpy's type."""

    values: NDArray[Any]


def array_bytes(values: NDArray[Any]) -> bytes:
    """The numbers as array_recv reads them: dimensions, no NULLs, element type, length, lower bound; then
    each element behind its size.
    """
    oid, _, form = _TYPES[values.dtype]
    if not len(values):
        return struct.pack("!iii", 0, 0, oid)
    sized = np.empty(len(values), dtype=[("size", ">i4"), ("value", form)])
    sized["size"], sized["value"] = values.itemsize, values
    return struct.pack("!iiiii", 1, 0, oid, len(values), 1) + sized.tobytes()


def number_array(data: bytes, length: int) -> NDArray[np.float32] | None:
    """The numbers of a `real[]` as array_send writes it; None where it has another length, or what is no
    number."""
    if len(data) != 20 + 8 * length:  # one dimension, and none of them NULL
        return None
    numbers = np.frombuffer(data, dtype=[("size", ">i4"), ("value", ">f4")], offset=20)["value"]
    values: NDArray[np.float32] = numbers.astype(np.float32)
    return values if np.isfinite(values).all() and values.any() else None


@dataclass(frozen=True)
class TextArray:
    """Texts as a query's parameter: a `text[]`."""

    texts: Sequence[str]


def text_array_bytes(texts: Sequence[str]) -> bytes:
    """The texts as array_recv reads them: each behind its size. Raises DataError for a text with a NUL."""
    if any("\0" in text for text in texts):
        raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    if not texts:
        return struct.pack("!iii", 0, 0, _TEXT)
    parts = [struct.pack("!iiiii", 1, 0, _TEXT, len(texts), 1)]
    for encoded in [text.encode() for text in texts]:
        parts += (_SIZE.pack(len(encoded)), encoded)
    return b"".join(parts)


@dataclass(frozen=True)
class VectorArray:
    """Vectors of one dimension as a query's parameter: an array of pgvector's `vector` or `halfvec`."""

    vectors: Sequence[NDArray[np.float32]]
    half: bool = False


def vector_array_bytes(array: VectorArray) -> bytearray:
    """The vectors as array_recv reads them: behind each one's size its dimension, two bytes, its numbers."""
    count = len(array.vectors)
    if not count:
        return bytearray(struct.pack("!iii", 0, 0, 0))
    dimension, number = len(array.vectors[0]), ">f2" if array.half else ">f4"
    row = np.dtype(
        [("size", ">i4"), ("dimension", ">i2"), ("unused", ">i2"), ("numbers", number, (dimension,))]
    )
    header = struct.pack("!iiiii", 1, 0, 0, count, 1)
    # Filled in place: each copy of a thousand vectors takes as long as all the rest of a write's parameters.
    message = bytearray(len(header) + count * row.itemsize)
    message[: len(header)] = header
    rows = np.frombuffer(message, dtype=row, offset=len(header))
    rows["size"], rows["dimension"] = row.itemsize - _SIZE.size, dimension
    np.stack(array.vectors, out=rows["numbers"], casting="same_kind")
    return message


class _TextArrayDumper(Dumper):
    format = Format.BINARY
    oid = 1009

    def dump(self, obj: TextArray) -> Buffer:
        return text_array_bytes(obj.texts)


class _VectorArrayDumper(Dumper):
    format = Format.BINARY
    oid = 0

    def dump(self, obj: VectorArray) -> Buffer:
        return vector_array_bytes(obj)


class _NumberArrayDumper(Dumper):
    format = Format.BINARY
    oid = 0  # the query's own cast says the type

    def dump(self, obj: NumberArray) -> Buffer:
        return array_bytes(obj.values)


# The types are ours, so every connection may know them.
psycopg.adapters.register_dumper(TextArray, _TextArrayDumper)
psycopg.adapters.register_dumper(VectorArray, _VectorArrayDumper)
psycopg.adapters.register_dumper(NumberArray, _NumberArrayDumper)
