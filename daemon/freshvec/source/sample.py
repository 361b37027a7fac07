"""Some texts of a table, without reading all of it."""

from freshvec.db import Session, queries, translated
from freshvec.source.bound import BoundSync
from freshvec.source.extent import measure

_SQL = queries("source/sample")
_SAMPLED = 20  # times as many rows are looked at as a sample takes


def sample(connection: Session, bound: BoundSync, rows: int) -> list[str]:
    """At most `rows` texts of the sync, spread evenly over the table; fewer where there are fewer.

    Raises DatabaseError.
    """
    texts: list[str] = []
    with translated(f"read texts of sync {bound.name!r} from", bound.sync.table):
        extent = measure(connection, bound.source_oid, bound.source_name)
        few = 100.0 * _SAMPLED * rows / extent.rows if extent.rows > _SAMPLED * rows else 100.0
        for percent in (few, 100.0):  # all of the table where `where` leaves too little of a part of it
            query = bound.compose(_SQL["sample"], share=extent.share(percent))
            texts = [text for (text,) in connection.execute(query, {"rows": rows})]
            if len(texts) >= rows or percent == 100.0:
                break
    return texts
