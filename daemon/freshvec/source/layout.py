"""Where the vectors of a sync lie, as queries about a row of the target see it.

The target has a row for each source row that has a text. Of each layout this says how such a row shows that
it has its vectors, and which relation and column they are in. What makes, fills and searches a layout is in
`target/`.
"""

from psycopg import sql

from freshvec.config import Sync


def is_embedded(sync: Sync) -> sql.Composable:
    """Whether row `t` of the target has its vectors."""
    return sql.SQL("(t.embedding IS NOT NULL)")


def vectors_of(sync: Sync, target: tuple[str, str]) -> tuple[str, str]:
    """The relation that the vectors are in, which an index is made on."""
    return target
