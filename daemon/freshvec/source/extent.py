"""How large a table is, partitions and children included, without reading all of it."""

from dataclasses import dataclass

from psycopg import sql

from freshvec.db import Session, queries, quoted

_SQL = queries("source/extent")
_COUNTED_PAGES = 400  # of a table that was never analysed, spread over it
# So many times as many rows are taken as are wanted: to cut off more would leave out the table's last pages.
MOST_TIMES = 3


@dataclass(frozen=True)
class Extent:
    """Rows as estimated, pages of 8 kB, bytes with out-of-line values and indexes, and how many tables."""

    rows: int
    pages: int
    bytes: int
    tables: int

    def percents(self, rows: int) -> tuple[float, ...]:
        """Shares of the pages, for TABLESAMPLE SYSTEM, of which the first should hold so many rows; the next
        is for when it does not, since pages are chosen by chance.

        Take at most `MOST_TIMES` as many rows, and all of a smaller table.
        """
        if self.rows <= rows * MOST_TIMES:
            return (100.0,)
        first = 100.0 * rows / self.rows
        return first, min(100.0, 20 * first)

    def share(self, percent: float) -> sql.Composable:
        """What TABLESAMPLE is to take of it."""
        return _share(percent, self.tables)


def _share(percent: float, tables: int) -> sql.Composable:
    """TABLESAMPLE's argument: the same pages each time, except where there are partitions. By one seed all of
    those that are small would be taken, or none."""
    again = "" if tables > 1 else " REPEATABLE (0)"
    return sql.SQL("SYSTEM ({})" + again).format(sql.Literal(percent))


def measure(connection: Session, oid: int, name: tuple[str, str]) -> Extent:
    """The extent of a table: by the statistics where there are any, else by counting in some of its pages."""
    row = connection.execute(_SQL["extent"], {"oid": oid}).fetchone()
    assert row is not None
    pages, size, tables, estimate = row
    if estimate is None:
        percent = min(100.0, 100.0 * _COUNTED_PAGES / max(pages, 1))
        query = sql.SQL(_SQL["count"]).format(table=quoted(*name), share=_share(percent, tables))
        counted = connection.execute(query, ()).fetchone()
        estimate = (counted[0] if counted else 0) * 100 / percent
    return Extent(round(estimate), pages, size, tables)
