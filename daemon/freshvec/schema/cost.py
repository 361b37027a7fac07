"""Cost: what it takes to embed a table: rows, tokens, time on this machine, log and disk. From a sample."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from psycopg import sql

from freshvec.db import Connection, queries, translated
from freshvec.encoding.rate import Rates
from freshvec.errors import DatabaseError
from freshvec.schema.plan import Plan
from freshvec.source.bound import BoundSync
from freshvec.source.extent import MOST_TIMES, Extent, measure
from freshvec.storage import Chunk, Index
from freshvec.target import table
from freshvec.target.size import index_seconds, of_row, of_row_in_column

_SQL = queries("schema/cost")
Lengths = Callable[[Sequence[str]], list[int]]  # tokens of texts
Rate = Callable[[Sequence[str]], float | None]  # tokens per second of such texts
SAMPLED = 500  # rows
CHARACTERS = 10_000  # of a text; what is longer is reckoned by its length
_FIRST_BUCKET = 16  # tokens
_FILLED = 0.65  # of a passage's limit, on average
_KEY_BYTES = 12  # of a key column, as a guess


@dataclass(frozen=True)
class Cost:
    """What embedding a table takes, estimated from `sampled` rows.

    `rows` are the table's, `texts` those of them with a text, `again` those to be encoded. `lengths` are the
    sampled texts' tokens, sorted; the model reads `max_tokens` of a text. `rate` is in tokens per second, and
    None where it was not measured. Bytes are of vectors, of the declared index on them (else HNSW), and of
    write-ahead log. `index_seconds` is how long building it takes on two cores. `passages` are those of a
    text, on average; None where texts are embedded whole. `rewritten_bytes` are of the source's rows that are
    written anew, where vectors lie in a column of it.
    """

    rows: int
    texts: int
    again: int
    sampled: int
    lengths: tuple[int, ...]
    max_tokens: int
    rate: float | None
    vector_bytes: int
    index_bytes: int | None
    wal_bytes: int
    index_seconds: float | None = None
    index: str = "HNSW"
    passages: float | None = None
    rewritten_bytes: int = 0

    @property
    def cut(self) -> float:
        """Share of the texts that are longer than the model reads, and not cut into passages."""
        if self.passages is not None:
            return 0.0
        return sum(length > self.max_tokens for length in self.lengths) / max(len(self.lengths), 1)

    @property
    def tokens(self) -> int:
        """Tokens to be encoded."""
        most = self.max_tokens if self.passages is None else max(self.lengths, default=0)
        read = [min(length, most) for length in self.lengths]
        return round(self.again * sum(read) / max(len(read), 1))

    @property
    def seconds(self) -> float | None:
        """How long encoding takes on this machine, alone."""
        return self.tokens / self.rate if self.rate else None

    def longest(self, share: float) -> int:
        """Tokens that this share of the texts does not exceed."""
        return self.lengths[min(int(share * len(self.lengths)), len(self.lengths) - 1)] if self.lengths else 0

    def histogram(self) -> list[tuple[int, int, float]]:
        """Share of the texts by length: more tokens than the first number, at most the second."""
        bounds = [_FIRST_BUCKET]
        while bounds[-1] * 2 < self.max_tokens:
            bounds.append(bounds[-1] * 2)
        is_longer = bool(self.lengths) and self.lengths[-1] > self.max_tokens
        bounds += [self.max_tokens, *([self.lengths[-1]] if is_longer else [])]
        edges = zip([0, *bounds], bounds, strict=False)
        count = max(len(self.lengths), 1)
        return [(low, top, sum(low < length <= top for length in self.lengths) / count) for low, top in edges]

    def json(self) -> dict[str, Any]:
        """The figures, for `--json`."""
        return {
            "rows": self.rows,
            "texts": self.texts,
            "to_encode": self.again,
            "sampled": self.sampled,
            "tokens": self.tokens,
            "tokens_p50": self.longest(0.5),
            "tokens_p95": self.longest(0.95),
            "max_tokens": self.max_tokens,
            "share_cut": self.cut,
            "passages_per_text": self.passages,
            "histogram": [
                {"above": low, "up_to": top, "share": share} for low, top, share in self.histogram()
            ],
            "tokens_per_second": self.rate,
            "seconds": self.seconds,
            "vector_bytes": self.vector_bytes,
            "index_bytes": self.index_bytes,
            "index_seconds": self.index_seconds,
            "wal_bytes": self.wal_bytes,
            "rewritten_bytes": self.rewritten_bytes,
        }


@dataclass(frozen=True)
class Sampled:
    """A text of a row, None where it has none, and whether the target has a vector of it already.
    `characters` are those of all of it, where this is its beginning."""

    text: str | None
    is_fresh: bool = False
    characters: int | None = None


@dataclass(frozen=True)
class Layout:
    """What decides the size of a vector's row."""

    dimension: int
    max_tokens: int
    kind: str
    key_columns: int
    index: Index | None = None
    chunk: Chunk | None = None
    in_column: bool = False

    def passages(self, lengths: Sequence[int]) -> float | None:
        """Passages of a text, on average; None where texts are embedded whole."""
        if self.chunk is None:
            return None
        limit = min(self.chunk.tokens or self.max_tokens, self.max_tokens)
        room = _FILLED * (limit - self.chunk.overlap)
        counts = [1.0 if length <= limit else max(2.0, length / room) for length in lengths]
        return sum(counts) / max(len(counts), 1)


def of_sample(
    rows: Sequence[Sampled], extent: Extent, layout: Layout, lengths_of: Lengths, rate: Rate
) -> Cost:
    """The cost of a table of that extent."""
    texts = [row.text for row in rows if row.text is not None]
    lengths = _whole_lengths(rows, lengths_of(texts)) if texts else []
    stale = sum(row.text is not None and not row.is_fresh for row in rows) / max(len(rows), 1)
    with_text, again = round(extent.rows * len(texts) / max(len(rows), 1)), round(extent.rows * stale)
    sized = of_row_in_column if layout.in_column else of_row
    size = sized(layout.dimension, layout.kind, _KEY_BYTES * layout.key_columns, layout.index)
    rewritten = round(again * extent.pages * 8192 / max(extent.rows, 1)) if layout.in_column else 0
    index, passages = layout.index or Index(), layout.passages(lengths)
    vectors, made = (with_text, again) if passages is None else (with_text * passages, again * passages)
    seconds = index_seconds(round(vectors), layout.dimension, index)
    return Cost(
        rows=extent.rows,
        texts=with_text,
        again=again,
        sampled=len(rows),
        lengths=tuple(lengths),
        max_tokens=layout.max_tokens,
        rate=rate(texts) if again else None,
        vector_bytes=round(vectors * size.target),
        index_bytes=None if size.index is None else round(vectors * size.index),
        wal_bytes=round(made * size.wal) + rewritten,
        rewritten_bytes=rewritten,
        index_seconds=None if size.index is None else seconds,
        index=("binary " if index.binary else "") + ("HNSW" if index.type == "hnsw" else "IVFFlat"),
        passages=passages,
    )


def _whole_lengths(rows: Sequence[Sampled], counted: list[int]) -> list[int]:
    """Tokens of whole texts, sorted: of a long one only the beginning was counted."""
    cut = iter(counted)
    return sorted(
        round(next(cut) * max(1.0, (row.characters or 0) / max(len(row.text), 1)))
        for row in rows
        if row.text is not None
    )


def of_plan(connection: Connection, planned: Plan, rates: Rates) -> Cost | str:
    """The cost of a sync as planned, or why it cannot be told. Rows whose vector is there already are not
    encoded again."""
    bound = planned.bound
    try:
        with translated(f"look at rows of sync {bound.name!r} in", bound.sync.table):
            extent, rows = _look(connection, planned)
    except DatabaseError as error:
        return str(error)
    model, declared = bound.model, bound.sync
    kind, keys = declared.target.type, len(bound.key)
    in_column = declared.target.column is not None
    layout = Layout(
        model.dimension, model.max_tokens, kind, keys, declared.index, declared.chunk, in_column=in_column
    )
    return of_sample(
        rows, extent, layout, partial(rates.lengths, model.name), partial(rates.rate, model.name)
    )


def _look(connection: Connection, planned: Plan) -> tuple[Extent, list[Sampled]]:
    """The extent of the table, and some of its rows."""
    bound = planned.bound
    with connection.transaction():
        connection.execute(_SQL["within"])
        extent = measure(connection, bound.source_oid, bound.source_name)
        has_target = _has_target(connection, planned)
        rows, percent = _sample(connection, bound, extent, has_target=has_target)
    is_whole = len(rows) < MOST_TIMES * SAMPLED and percent == 100.0
    return (replace(extent, rows=len(rows)) if is_whole else extent), rows


def _has_target(connection: Connection, planned: Plan) -> bool:
    """Whether there is a target whose vectors may be those that are wanted."""
    if planned.applied is None:
        return False
    target = table.describe(connection, planned.bound.target_name)
    return target is not None and not table.following(connection, planned.bound, target)


def _sample(
    connection: Connection, bound: BoundSync, extent: Extent, *, has_target: bool
) -> tuple[list[Sampled], float]:
    """Rows, and the share of the table's pages that they were taken from, in percent."""
    name = "sample_with_target" if has_target else "sample"
    given = {"fingerprint": bound.model.fingerprint}
    rows: list[Sampled] = []
    percent = 100.0
    for percent in extent.percents(SAMPLED):
        parts = {
            "share": extent.share(percent),
            "rows": sql.Literal(MOST_TIMES * SAMPLED),
            "characters": sql.Literal(CHARACTERS),
        }
        query = bound.compose(_SQL[name], **parts)
        found = connection.execute(query, given)
        rows = [Sampled(text, is_fresh, characters) for text, characters, is_fresh in found]
        if len(rows) >= SAMPLED // 4:
            break
    return rows, percent
