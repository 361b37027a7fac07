"""The frozen values that flow from the queue to the target."""

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

# A row's key: each key column as Postgres prints it. Text goes through every type unchanged, so no
# key type needs code of its own.
Key = tuple[str, ...]
Vector = NDArray[np.float32]
# Of the rules by which texts are cut into passages (encoding/passages.py): part of each row's hash.
CUTTING_VERSION = 1
# An entry of a change queue, as `file transaction place`: an entry of a later transaction may take its place,
# and VACUUM FULL makes another file, with other places.
Entry = str


@dataclass(frozen=True)
class Model:
    """What the database side needs to know of a model."""

    name: str
    dimension: int
    max_tokens: int
    fingerprint: bytes
    kin: tuple[bytes, ...] = ()  # of the same model in other precisions, where vectors of it are to stay

    def fit(self, vector: Vector) -> Vector:
        """A vector as the sync keeps it: whole, or cut to its dimension."""
        return shortened(vector, self.dimension)


def shortened(vector: Vector, dimension: int) -> Vector:
    """The first numbers, at length one again, as Matryoshka vectors are cut (arXiv:2205.13147)."""
    if dimension == len(vector):
        return vector
    part = vector[:dimension]
    length = float(np.linalg.norm(part))
    return part / np.float32(length) if length else part


class Urgency(IntEnum):
    """Which work goes first when several wait for the encoder."""

    QUERY = 0  # somebody waits for the answer
    LIVE = 1  # an application changed a few rows and may search for them now
    BULK = 2  # one statement changed many rows
    BACKFILL = 3


@dataclass(frozen=True, slots=True)
class Change:
    """A row that changed, and the entries of the change queue that say so."""

    key: Key
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A row as read from the source; `text` is None when there is nothing to embed or nothing to do.

    `unchanged`: the target holds what it should. `error`: why its text could not be read.
    """

    key: Key
    text: str | None
    content_hash: bytes | None
    unchanged: bool
    error: str | None = None


class Fate(Enum):
    """What the writer does with a row."""

    STORE = "store"  # upsert embedding, hash, fingerprint; or an error, or a tombstone: neither of them
    TOUCH = "touch"  # same text, same model: raise the fence only
    CLEAR = "clear"  # the row has no text
    REMOVE = "remove"  # the source row is gone
    KEEP = "keep"  # read again by a backfill and found fresh: nothing to write


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage of a row's text, as characters [begin, end) of it.

    `embedding` is None where the target has the vector of this very passage already.
    """

    begin: int
    end: int
    content_hash: bytes
    embedding: Vector | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row, ready to be written. `fence` is that of the read its text came from.

    A row whose text is cut has `passages`, another one an `embedding`.
    """

    key: Key
    fence: int
    fate: Fate
    embedding: Vector | None = None
    content_hash: bytes | None = None
    error: str | None = None
    passages: tuple[Passage, ...] = ()

    @property
    def vectors(self) -> int:
        """How many vectors it brings."""
        if self.passages:
            return sum(passage.embedding is not None for passage in self.passages)
        return int(self.embedding is not None)

    @property
    def is_tombstone(self) -> bool:
        """Whether it only keeps older readings of a row without text from being written."""
        return self.fate is Fate.STORE and self.content_hash is None and self.error is None


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text as token ids. `truncated`: the text was longer than the model reads."""

    ids: NDArray[np.int64] = field(repr=False)
    truncated: bool = False

    def __len__(self) -> int:
        return len(self.ids)


class OutOfMemoryError(Exception):
    """A batch did not fit into the device's memory; a smaller one may."""


class Encoder(Protocol):
    """What the pipeline needs of a model. Calls of `tokenize` and `encode` may overlap."""

    @property
    def dimension(self) -> int: ...

    @property
    def max_tokens(self) -> int: ...

    @property
    def fingerprint(self) -> bytes: ...

    @property
    def device(self) -> str: ...

    @property
    def precision(self) -> str: ...

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        """Token ids of document texts, one entry per text."""
        ...

    def tokenize_queries(self, texts: list[str]) -> list[Tokens]:
        """Token ids of search texts, one entry per text."""
        ...

    def encode(self, batch: list[Tokens]) -> Vector:
        """Embeddings, float32 `[len(batch), dimension]`, in order. Raises OutOfMemoryError."""
        ...

    def rebuild(self) -> None:
        """Give all memory of the device back and begin anew."""
        ...
