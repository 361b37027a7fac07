"""Keys of collations and of types with their own order: every statement finds its rows by the index."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import sql

from freshvec.arrays import NumberArray
from freshvec.db import connect, queries
from freshvec.records import Key
from freshvec.source.bound import BoundSync
from freshvec.target.upsert import TargetWriter
from tests.integration.test_equal_keys import OF_15, REAL
from tests.support import Connection, NullEncoder, backfill, bound_sync, settings_for, sync_of

COLLATED = {
    "C": ('id text COLLATE "C" PRIMARY KEY', ["id"]),
    "two collations": ('id text COLLATE "C", two text COLLATE "POSIX", PRIMARY KEY (id, two)', ["id", "two"]),
    "C and default": ('id text COLLATE "C", two text, PRIMARY KEY (id, two)', ["id", "two"]),
    "varchar and number": (
        'id varchar(40) COLLATE "C", two bigint, PRIMARY KEY (id, two)',
        ["id", "two"],
    ),
}
COLLATED_15 = {
    "citext": ("id citext PRIMARY KEY", ["id"]),
    "ltree": ("id ltree PRIMARY KEY", ["id"]),
    "nondeterministic": ("id text COLLATE nocase PRIMARY KEY", ["id"]),
    "citext and text": ("id citext, two text, PRIMARY KEY (id, two)", ["id", "two"]),
}


@pytest.fixture(
    params=[(v, kind) for v in ("18", "16") for kind in COLLATED] + [("15", kind) for kind in COLLATED_15],
    ids=lambda param: f"{param[0]} {param[1]}",
)
def collated(request: pytest.FixtureRequest) -> Iterator[tuple[str, Connection]]:
    """20,000 rows under a key of that collation or type."""
    version, kind = request.param
    url: str = request.getfixturevalue({"18": "url", "16": "url16", "15": "url15"}[version])
    columns, key = (COLLATED | COLLATED_15)[kind]
    names = ", ".join(key)
    with psycopg.connect(url, autocommit=True) as application:
        if version == "15":
            application.execute(OF_15)
        application.execute("SET search_path = public, extensions")
        application.execute(f"CREATE TABLE docs ({columns}, body text)")
        values = "('k' || g)::{}".format("ltree" if kind == "ltree" else "text")
        more = ", (g % 7)" + ("::text" if "two text" in columns else "") if len(key) == 2 else ""
        application.execute(
            f"INSERT INTO docs ({names}, body) SELECT {values}{more}, 'text ' || g"
            " FROM generate_series(1, 20000) g"
        )
        application.execute("ANALYZE docs")
        yield url, application


def plan_of(connection: Connection, query: sql.Composed, params: dict[str, Any]) -> str:
    explained = connection.execute(sql.SQL("EXPLAIN (ANALYZE, COSTS OFF) ") + query, params)
    return "\n".join(row[0] for row in explained)


def parameters(bound: BoundSync, keys: list[Key], fingerprint: bytes) -> dict[str, Any]:
    """What the statements are given, for rows of these keys that could not be encoded."""
    given: dict[str, Any] = {
        "fingerprint": fingerprint,
        "most_characters": 10**7,
        "characters": None,
        "limit": 200,
        "most": 400,
        "fences": NumberArray(np.full(len(keys), 10**9, np.int64)),
        "hashes": b"",
        "hash_slots": NumberArray(np.zeros(len(keys), np.int32)),
        "vectors": NumberArray(np.empty(0, np.float32)),
        "errors": ["x"] * len(keys),
    }
    return given | bound.key_arrays(keys)


def pages(bound: BoundSync) -> dict[str, sql.Composed]:
    """The statements that read a range of keys."""
    beyond = {"beyond": bound.compose("WHERE {beyond_after}")}
    t_beyond = {"beyond": bound.compose("WHERE {t_beyond_after}")}
    span = {"range": bound.compose("WHERE {beyond_after} AND {up_to_last}")}
    return {
        "page": bound.compose(queries("scans/backfill")["page"], **beyond),
        "verify": bound.compose(queries("scans/verify")["range"], **span),
        "orphans": bound.compose(queries("scans/orphans")["orphans"], **t_beyond),
    }


def test_every_statement_uses_the_indexes_of_the_key(collated: tuple[str, Connection]) -> None:
    url, application = collated
    settings, encoder = settings_for(url, sync_of("docs", target=REAL)), NullEncoder()
    backfill(settings, encoder)
    application.execute("ANALYZE docs_embedding")
    with connect(settings.database.url, "test") as connection:
        bound = bound_sync(connection, settings, encoder)
        query = "SELECT {d_key_texts} FROM {source} AS d ORDER BY {d_keys} OFFSET 15000 LIMIT 200"
        keys = [tuple(row) for row in connection.execute(bound.compose(query))]
        writer, given = TargetWriter(connection, bound), parameters(bound, keys, encoder.fingerprint)
        ends = bound.key_values(keys[0]) | bound.last_values(keys[-1])
        plans = {name: plan_of(connection, page, given | ends) for name, page in pages(bound).items()}
        rows = bound.compose(queries("source/rows")["read_rows"])
        plans["rows"] = plan_of(connection, rows, given)
        for name in ("touch", "overtaken", "clear", "remove", "upsert"):
            plans[name] = plan_of(connection, writer.queries[name], given)
    for name, plan in plans.items():
        assert "Seq Scan on docs" not in plan, f"{name}:\n{plan}"
        assert "Index" in plan, f"{name}:\n{plan}"
        scans = re.findall(r"(?:Scan using|Index Scan on) docs\w*_pkey", plan)
        looked_up = plan.count("pg_class_oid_index")  # whose the target is
        assert plan.count("Index Cond") - looked_up == len(scans), f"{name}: a whole index is read\n{plan}"
