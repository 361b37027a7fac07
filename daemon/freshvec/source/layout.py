"""Where the vectors of a sync lie, as queries about a row of the target see it.

The target has a row for each source row that has a text. Of each layout this says how such a row shows that
it has its vectors, and which relation they are in. What makes, fills and searches a layout is in `target/`.
"""

from psycopg import sql

from freshvec.config import Sync
from freshvec.records import CUTTING_VERSION


def is_embedded(sync: Sync) -> sql.Composable:
    """Whether row `t` of the target has its vectors."""
    return sql.SQL("(t.passages IS NOT NULL)" if sync.chunk else "(t.embedding IS NOT NULL)")


def vectors_of(sync: Sync, target: tuple[str, str]) -> tuple[str, str]:
    """The relation that the vectors are in, which an index is made on."""
    schema, table = target
    return (schema, f"{table.removesuffix('_embedding')}_chunk") if sync.chunk else target


def cutting(sync: Sync, max_tokens: int) -> bytes:
    """What tells apart how texts are cut into passages: text that is cut otherwise is to be read again."""
    if sync.chunk is None:
        return b""
    tokens = min(sync.chunk.tokens or max_tokens, max_tokens)
    return f" in passages {CUTTING_VERSION}: {tokens} {sync.chunk.overlap}".encode()
