"""How a sync's vectors are kept, as declared: the target, and the index on it."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator


class Frozen(BaseModel):
    """Settings that do not change. The text under each of them is its description: `make docs` writes
    docs/configuration.md from them."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


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


def _qualified(value: str) -> str:
    try:
        split_name(value)
    except ValueError as fault:
        raise ValueError(f"{fault}; write schema.table, with double quotes round unusual names") from None
    return value


TableName = Annotated[str, AfterValidator(_qualified)]


class Target(Frozen):
    """Where a sync's vectors lie."""

    table: TableName | None = None
    """The table, made by `apply`. Default: the source's name with `_embedding`, in the source's schema. With
    `column` it holds what is known of each vector instead of the vectors."""
    column: Annotated[str, StringConstraints(min_length=1)] | None = None
    """A column of the source that the vectors are written to, as in `target = { column = "embedding" }`:
    existing, or made by `apply`. Each vector is then an UPDATE of the application's row; read what that costs
    in docs/operations.md, Vectors in the table itself."""
    type: Literal["vector", "halfvec", "real[]"] = "vector"
    """The type of its vectors. `halfvec` takes half the space; `real[]` needs no pgvector."""


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
