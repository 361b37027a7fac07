"""How a sync's vectors are kept, as declared: the target, and the index on it."""

import re
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)


class Frozen(BaseModel):
    """Settings that do not change. The text under each of them is its description: `make docs` writes
    docs/configuration.md from them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def split_name(name: str) -> tuple[str | None, str]:
    """`schema.table` with SQL's own quoting into its parts: unquoted names fold to lower case."""
    part = r'"(?:[^"]|"")+"|[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*'
    matched = re.fullmatch(rf"(?:({part})\.)?({part})", name.strip())
    if not matched:
        raise ValueError(f"{name!r} is not a table name")
    schema, table = (
        None if text is None else text[1:-1].replace('""', '"') if text[0] == '"' else text.lower()
        for text in matched.groups()
    )
    assert table is not None
    return schema, table


def written_name(name: str) -> str:
    """A name as SQL and the configuration take it, in quotes where it needs them."""
    is_plain = name.isidentifier() and name == name.lower() and name.isascii()
    return name if is_plain else '"' + name.replace('"', '""') + '"'


def _qualified(value: str) -> str:
    try:
        split_name(value)
    except ValueError as fault:
        raise ValueError(f"{fault}; write schema.table, with double quotes round unusual names") from None
    return value


# Types of pgvector that no vectors are kept in, and what to write instead.
_INSTEAD = {
    "sparsevec": "it is for vectors that are mostly zeros, and a model's have none; "
    'write "halfvec", which takes half the space',
    "bit": "bits alone rank badly, and the numbers cannot be recovered from them; write index = "
    '{ type = "hnsw", binary = true }, which finds rows by bits and orders them by their vectors',
}

TableName = Annotated[str, AfterValidator(_qualified)]


def _type(value: object) -> object:
    other = _INSTEAD.get(value) if isinstance(value, str) else None
    if other is not None:
        raise ValueError(f"{value!r} is not possible: {other}")
    return value


class Target(Frozen):
    """Where a sync's vectors lie."""

    table: TableName | None = None
    """The table, made by `apply`. Default: the source's name with `_embedding`, in the source's schema. With
    `column` it holds what is known of each vector instead of the vectors."""
    column: Annotated[str, StringConstraints(min_length=1)] | None = None
    """A column of the source that the vectors are written to, as in `target = { column = "embedding" }`:
    existing, or made by `apply`. Each vector is then an UPDATE of the application's row; read what that costs
    in docs/operations.md, Vectors in the table itself."""
    type: Annotated[Literal["vector", "halfvec", "real[]"], BeforeValidator(_type)] = "vector"
    """The type of its vectors. `halfvec` takes half the space; `real[]` needs no pgvector."""
    dimensions: int | None = Field(default=None, gt=0)
    """To how many numbers vectors are cut, at length one again: one of those that the model's card lists
    under `matryoshka`. Default: all of them."""


class Chunk(Frozen):
    """Long texts in passages, as in `chunk = { tokens = 200, overlap = 30 }`; `chunk = "auto"` is
    `chunk = {}`. Each passage has a vector of its own in `<source>_chunk`, and a search gives the rows with
    the passage that was found. A text is cut between paragraphs, else sentences, else words, so that an edit
    leaves the passages elsewhere as they are. Without it, a text longer than the model reads is cut off."""

    tokens: int | None = Field(default=None, ge=16, le=32768)
    """The most tokens a passage has, its overlap included; on average it has two thirds of them. Default: as
    many as the model reads."""
    overlap: int = Field(default=0, ge=0, le=16384)
    """With up to so many tokens of what stands before it each passage begins, but the first: at most half of
    `tokens`."""

    @model_validator(mode="after")
    def _leaves_room(self) -> Self:
        if self.tokens is not None and 2 * self.overlap > self.tokens:
            raise ValueError(f"overlap must be at most half of tokens, {self.tokens // 2} or less")
        return self


def _chunk(given: object) -> object:
    return {} if given == "auto" else given


# "auto" is all defaults.
Chunked = Annotated[Chunk, BeforeValidator(_chunk)]


class Index(Frozen):
    """The index that searches use, as in `index = { type = "hnsw" }`. It is built once every row has its
    vector, since filling a table with such an index takes many times as long; reads and writes go on
    meanwhile. Declared otherwise, it is built anew beside the old one; declared no more, it is dropped. An
    index that you made yourself is left alone."""

    type: Literal["hnsw", "ivfflat"] = "hnsw"
    """`hnsw` finds more and needs no rows to begin with; `ivfflat` is built sooner and is smaller."""
    distance: Literal["cosine", "ip", "l2"] = "cosine"
    """The distance it orders by: `cosine` (operator `<=>`), `ip` (inner product, `<#>`), `l2` (`<->`)."""
    m: int | None = Field(default=None, ge=2, le=100)
    """HNSW: links per vector and layer. Default: 16."""
    ef_construction: int | None = Field(default=None, ge=4, le=1000)
    """HNSW: candidates looked at for each vector, at least twice `m`. Default: 64."""
    lists: int | None = Field(default=None, ge=1, le=32768)
    """IVFFlat: into how many lists the vectors are divided. Default: a thousandth of the vectors, above a
    million of them the square root of their number."""
    binary: bool = False
    """Whether it holds one bit per number instead of the numbers: a small part of the size. Searches then
    look up many rows by their bits and order them by their vectors, as `freshvec search` does."""
    memory_mb: int | None = Field(default=None, ge=1, le=1_048_576)
    """`maintenance_work_mem` of the session that builds it, in MB. A graph that does not fit is built several
    times as slowly. Default: the server's."""
    rebuild: bool = False
    """Whether it is dropped while most rows are encoded again for another model, and built at the end. That
    is much faster; until then searches read every row."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.type == "hnsw" and self.lists is not None:
            raise ValueError('lists is of ivfflat; take it out, or write type = "ivfflat"')
        if self.type == "ivfflat" and (self.m, self.ef_construction) != (None, None):
            raise ValueError('m and ef_construction are of hnsw; take them out, or write type = "hnsw"')
        if self.type == "hnsw" and self.candidates < 2 * self.links:
            raise ValueError(f"ef_construction must be at least twice m, {2 * self.links} or more")
        if self.binary and self.distance != "cosine":
            raise ValueError("a binary index compares bits; take distance out")
        return self

    @property
    def links(self) -> int:
        return self.m or 16

    @property
    def candidates(self) -> int:
        return self.ef_construction or 64
