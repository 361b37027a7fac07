"""Any key, any name: backfill, live changes and verify on all of them."""

import pytest
from psycopg import sql

from freshvec.db import connect, queries
from freshvec.scans.backfill import Backfill
from freshvec.scans.verify import verify
from freshvec.source.rows import MOST_CHARACTERS
from tests.support import (
    Connection,
    NullEncoder,
    bound_sync,
    content_hash,
    count,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
)

ODD = [
    "a:b",
    "it's",
    'say "hi"',
    "back\\slash",
    "new\nline",
    "{brace,comma}",
    "100%",
    "emoji 🎉",
    "ünïcödé",
    " ",
]
UUIDS = [f"00000000-0000-0000-0000-{n:012d}" for n in range(3)]

KEYS: dict[str, tuple[str, list[tuple[object, ...]]]] = {
    "bigint": ("k bigint PRIMARY KEY", [(-(2**62),), (0,), (2**62,)]),
    "smallint": ("k smallint PRIMARY KEY", [(1,), (2,), (3,)]),
    "uuid": ("k uuid PRIMARY KEY", [(uuid,) for uuid in UUIDS]),
    "text": ("k text PRIMARY KEY", [(key,) for key in ODD]),
    "timestamptz": (
        "k timestamptz PRIMARY KEY",
        [("2026-01-01 00:00:00.000001+05",), ("infinity",), ("1999-12-31",)],
    ),
    "timestamp": ("k timestamp PRIMARY KEY", [("2026-01-01 00:00:00.123456",), ("2026-01-01",)]),
    "numeric": ("k numeric PRIMARY KEY", [("1.10",), ("123456789012345678901234567890.5",)]),
    "enum": ("k mood PRIMARY KEY", [("sad",), ("happy",)]),
    "inet": ("k inet PRIMARY KEY", [("10.0.0.1",), ("::1",)]),
    "composite": ("k text, n int, PRIMARY KEY (k, n)", [(key, n) for key in ODD for n in (1, 2)]),
    "uuid and time": (
        "k uuid, n timestamptz, PRIMARY KEY (n, k)",
        [(uuid, f"2026-01-0{n}") for n, uuid in enumerate(UUIDS, 1)],
    ),
    "unique index only": ("k int NOT NULL UNIQUE, n int", [(1, None), (2, None)]),
}


@pytest.mark.parametrize(("columns", "keys"), KEYS.values(), ids=KEYS.keys())
def test_every_kind_of_key(
    url: str, application: Connection, columns: str, keys: list[tuple[object, ...]]
) -> None:
    application.execute("CREATE TYPE mood AS ENUM ('happy', 'sad')")
    application.execute(f"CREATE TABLE docs ({columns}, body text)")
    marks = ", ".join(["%s"] * len(keys[0]))
    names = "k, n" if len(keys[0]) == 2 else "k"
    for key in keys[:-1]:
        application.execute(f"INSERT INTO docs ({names}, body) VALUES ({marks}, 'before')", key)
    settings = settings_for(url, sync_of("docs"), page_rows=2)
    encoder = NullEncoder()
    with running(settings, encoder) as worker:
        wait_fresh(worker)
        application.execute(f"INSERT INTO docs ({names}, body) VALUES ({marks}, 'live')", keys[-1])
        application.execute("UPDATE docs SET body = body || k::text")
        application.execute("DELETE FROM docs WHERE ctid = (SELECT min(ctid) FROM docs)")
        until("the queue is empty", lambda: count(application, "freshvec.queue_docs") == 0)
        with connect(settings.database.url, "test") as connection:
            report = verify(connection, bound_sync(connection, settings, encoder))
    assert report.is_fresh, report
    assert report.rows == len(keys) - 1


NAMES = [
    ("Order", "User", "select", "group"),
    ("public", 'quote"d', "a%b", "tex t"),
    ("public", "docs", "k1", "freshvec_text"),
    ("public", "Ünï", "seq", "bulk"),
]


@pytest.mark.parametrize("names", NAMES, ids=["reserved", "quotes and percent", "our own names", "unicode"])
def test_any_name(url: str, application: Connection, names: tuple[str, str, str, str]) -> None:
    namespace, table, key, text = names
    application.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(namespace)))
    relation, k, t = sql.Identifier(namespace, table), sql.Identifier(key), sql.Identifier(text)
    application.execute(sql.SQL("CREATE TABLE {} ({} int PRIMARY KEY, {} text)").format(relation, k, t))
    application.execute(sql.SQL("INSERT INTO {} VALUES (1, 'one'), (2, 'two')").format(relation))
    declared = sync_of(relation.as_string(), columns=[text])
    target = sql.Identifier(namespace, f"{table}_embedding").as_string().replace("%", "%%")
    with running(settings_for(url, declared), NullEncoder()) as worker:
        wait_fresh(worker)
        application.execute(sql.SQL("UPDATE {} SET {} = 'edited' WHERE {} = 1").format(relation, t, k))
        query = f"SELECT count(*) FROM {target} WHERE content_hash = %s"
        edited = (content_hash("edited"),)
        until("the edit is fresh", lambda: application.execute(query, edited).fetchone() == (1,))


def test_a_page_is_found_through_the_key_and_is_as_quick_late_as_early(
    url: str, application: Connection
) -> None:
    application.execute("CREATE TABLE docs (a int, b text, body text, PRIMARY KEY (a, b))")
    application.execute(
        "INSERT INTO docs SELECT g % 50, g::text, 'text ' || g FROM generate_series(1, 20000) g"
    )
    settings, encoder = settings_for(url, sync_of("docs")), NullEncoder()
    with running(settings, encoder) as worker:
        wait_fresh(worker)
    with connect(settings.database.url, "test") as connection:
        bound = bound_sync(connection, settings, encoder)
        page = bound.compose(queries("scans/backfill")["page"], beyond=bound.compose("WHERE {beyond_after}"))
        for after in (("0", "1"), ("49", "99")):
            params = {"limit": 100, "fingerprint": encoder.fingerprint, "most_characters": MOST_CHARACTERS}
            params |= bound.key_values(after)
            explain = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT TEXT) ") + page
            plan = "\n".join(row[0] for row in connection.execute(explain, params))
            assert "Index Cond: (ROW(" in plan, plan
            assert "Seq Scan" not in plan
            assert "Rows Removed by Filter" not in plan
        assert Backfill(connection, bound).done
