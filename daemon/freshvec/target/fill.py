"""The first fill of a target, by COPY: rows that nothing has been written of cost the server half of an
upsert.

A row that is deleted meanwhile gets its vector nevertheless, which the walk's end takes away; searches never
see it. Where a row is there already, as one that was changed while the table is filled, the whole transaction
fails and is written otherwise (pipeline/writer.py).
"""

import struct
import uuid
from collections.abc import Callable, Sequence

from freshvec.db import Session, as_sent, queries
from freshvec.records import Fate, Key, Outcome, Vector
from freshvec.source.bound import BoundSync

_SQL = queries("target/fill")
_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
_END = struct.pack("!h", -1)


def _number(size: int, form: str) -> Callable[[str], bytes]:
    packed = struct.Struct(f"!i{form}")
    return lambda text: packed.pack(size, int(text))


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("!i", len(encoded)) + encoded


def _uuid(text: str) -> bytes:
    return struct.pack("!i16s", 16, uuid.UUID(text).bytes)


# Keys are texts in the daemon; these have a binary form that needs no more than that.
_KEYS: dict[str, Callable[[str], bytes]] = {
    "smallint": _number(2, "h"),
    "integer": _number(4, "i"),
    "bigint": _number(8, "q"),
    "uuid": _uuid,
    "text": _text,
    "character varying": _text,
}


def can_fill(bound: BoundSync) -> bool:
    """Whether COPY may write this target, and the key has types whose binary form is known."""
    kinds = {column.type.split("(")[0] for column in bound.key}
    target = bound.sync.target
    is_plain = bound.sync.chunk is None and target.column is None and target.type != "real[]"
    return is_plain and not bound.has_row_security and kinds <= _KEYS.keys()


def is_filled(outcome: Outcome) -> bool:
    """Whether a row is written by COPY: one that has a vector."""
    return outcome.fate is Fate.STORE and outcome.embedding is not None


class Fill:
    """Writes rows that the target has nothing of, inside the caller's transaction."""

    def __init__(self, bound: BoundSync) -> None:
        self._bound = bound
        # In a query with parameters, which this is not, a % in a name is doubled.
        self._copy = as_sent(bound.compose(_SQL["copy"])).encode()
        self._keys = [_KEYS[column.type.split("(")[0]] for column in bound.key]
        self._fields = struct.pack("!h", len(self._keys) + 4)
        self._number = ">f2" if bound.sync.target.type == "halfvec" else ">f4"

    def write(self, connection: Session, outcomes: Sequence[Outcome]) -> None:
        """Raises psycopg's UniqueViolation where a row is there."""
        rows = [self._row(outcome) for outcome in outcomes]
        with connection.cursor().copy(self._copy) as copy:
            copy.write(b"".join([_HEADER, *rows, _END]))

    def _row(self, outcome: Outcome) -> bytes:
        fingerprint, content_hash = self._bound.model.fingerprint, outcome.content_hash
        assert outcome.embedding is not None
        assert content_hash is not None
        rest = struct.pack(
            f"!i{len(content_hash)}si{len(fingerprint)}siq",
            len(content_hash),
            content_hash,
            len(fingerprint),
            fingerprint,
            8,
            outcome.fence,
        )
        return b"".join([self._fields, self._key(outcome.key), self._vector(outcome.embedding), rest])

    def _key(self, key: Key) -> bytes:
        return b"".join([packed(part) for packed, part in zip(self._keys, key, strict=True)])

    def _vector(self, vector: Vector) -> bytes:
        numbers = self._bound.model.fit(vector).astype(self._number).tobytes()
        return struct.pack("!ihh", 4 + len(numbers), self._bound.model.dimension, 0) + numbers
