"""Some texts of a table, and how many there may be, without reading all of it."""

from freshvec.db import Session, queries, translated
from freshvec.source.bound import BoundSync

_SQL = queries("source/sample")
_SAMPLED = 20  # times as many rows are looked at as a sample takes


def estimated_rows(connection: Session, bound: BoundSync) -> int:
    """The statistics' row count of the source, -1 where it was never analysed."""
    row = connection.execute(_SQL["estimated_rows"], {"oid": bound.source_oid}).fetchone()
    return int(row[0]) if row else -1


def sample(connection: Session, bound: BoundSync, rows: int) -> list[str]:
    """At most `rows` texts of the sync, spread evenly over the table; fewer where there are fewer.

    Raises DatabaseError.
    """
    estimate = estimated_rows(connection, bound)
    few = 100.0 * _SAMPLED * rows / estimate if estimate > _SAMPLED * rows else 100.0
    query = bound.compose(_SQL["sample"])
    texts: list[str] = []
    for percent in (few, 100.0):  # all of the table where `where` leaves too little of a part of it
        with translated(f"read texts of sync {bound.name!r} from", bound.sync.table):
            texts = [text for (text,) in connection.execute(query, {"rows": rows, "percent": percent})]
        if len(texts) >= rows or percent == 100.0:
            break
    return texts
