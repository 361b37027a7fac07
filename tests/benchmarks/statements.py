"""What the application's larger statements pay, beside the same without us; and their transaction ids."""

import time

from tests.benchmarks.harness import Report, database, median
from tests.benchmarks.tables import TABLES, make_tables
from tests.support import Connection, NullEncoder, backfill, settings_for, sync_of

# 8 kB of random digits a row, kept out of line as they are.
_RANDOM = """
INSERT INTO plain
SELECT g, string_agg(md5(g::text || random()), '') FROM generate_series(1, %s) g, generate_series(1, 250)
 GROUP BY g
"""
# No checkpoint within the measurements: the pages written after one cost whoever comes first.
_QUIET = {"max_wal_size": "8GB", "checkpoint_timeout": "1h"}


def statements(report: Report, quick: bool) -> None:
    for version, bar in ((18, 1.5), (16, 3.0)):
        _unrelated(report, version, bar, quick)
    _bulk(report, 0, (1.9, 3.0), quick)
    _bulk(report, 4, (3.0, 5.0), quick)
    _transaction(report)


def _unrelated(report: Report, version: int, bar: float, quick: bool) -> None:
    """An UPDATE of a column that is not watched, of rows with long texts."""
    rows = 500 if quick else 20_000
    with database(version, _QUIET) as (url, connection):
        make_tables(connection)
        connection.execute(_RANDOM, (rows,))
        for table in ("appended", "docs"):
            connection.execute(f"INSERT INTO {table} TABLE plain".encode())
        backfill(settings_for(url, sync_of("docs")), NullEncoder())
        name = f"UPDATE of an unrelated column, {rows:,} rows of 8 kB, Postgres {version}"
        _measure(report, connection, name, "UPDATE {table} SET views = views + 1", quick, bar)


def _bulk(report: Report, partitions: int, bars: tuple[float, float], quick: bool) -> None:
    inserted, updated = (5000, 1000) if quick else (100_000, 10_000)
    kind = f"a table of {partitions} partitions" if partitions else "an ordinary table"
    with database(settings=_QUIET) as (url, connection):
        make_tables(connection, partitions)
        backfill(settings_for(url, sync_of("docs")), NullEncoder())  # of nothing: it makes the triggers
        insert = f"""
            INSERT INTO {{table}} SELECT g, 'text number ' || g
              FROM generate_series({{turn}} * {inserted} + 1, ({{turn}} + 1) * {inserted}) g"""
        _measure(report, connection, f"INSERT of {inserted:,} rows into {kind}", insert, quick, bars[0])
        update = f"UPDATE {{table}} SET body = body || ' changed' WHERE id <= {updated}"
        _measure(report, connection, f"UPDATE of {updated:,} texts in {kind}", update, quick, bars[1])


def _measure(
    report: Report, connection: Connection, name: str, statement: str, quick: bool, bar: float
) -> None:
    """The statement on each table in turn, the first turn unmeasured."""
    seconds: dict[str, list[float]] = {table: [] for table in TABLES}
    for turn in range(2 if quick else 4):
        for table in TABLES:
            connection.execute(f"VACUUM ANALYZE {table}".encode())
            began = time.perf_counter()
            connection.execute(statement.format(table=table, turn=turn).encode())
            seconds[table].append(time.perf_counter() - began)
    ratios = {
        table: median([ours / plain for ours, plain in zip(seconds[table][1:], seconds["plain"][1:])])
        for table in ("appended", "docs")
    }
    report.add(f"{name}, no trigger", median(seconds["plain"][1:]) * 1000, "ms")
    report.add(f"{name}, bare append / no trigger", ratios["appended"], "×")
    report.at_most(f"{name}, ours / no trigger", ratios["docs"], bar, "×")


def _transaction(report: Report) -> None:
    """Transaction ids that one-row updates take together: a subtransaction each would overflow caches."""
    with database(settings={"autovacuum": "off"}) as (url, connection):
        connection.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 200) g")
        backfill(settings_for(url, sync_of("docs")), NullEncoder())
        next_id = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
        (before,) = connection.execute(next_id).fetchone() or (0,)
        with connection.transaction():
            for row in range(1, 201):
                connection.execute("UPDATE docs SET body = body || ' changed' WHERE id = %s", (row,))
        (after,) = connection.execute(next_id).fetchone() or (0,)
        (noted,) = connection.execute("SELECT count(*) FROM freshvec.queue_docs").fetchone() or (0,)
        assert noted == 200, noted
        report.at_most("transaction ids of 200 one-row updates in a transaction", after - before, 1)
