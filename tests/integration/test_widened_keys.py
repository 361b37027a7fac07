"""A key that takes longer values than it did: no statement fails, and whatever cannot be noted is walked."""

import psycopg
import pytest

from tests.support import Connection, NullEncoder, backfill, count, settings_for, sync_of

# The key's type, a wider one, a value of the first, and one that fits the wider one alone.
WIDENED = {
    "varchar": ("varchar(4)", "varchar(40)", "'a'", "'abcdefgh'"),
    "varchar to text": ("varchar(4)", "text", "'a'", "'abcdefgh'"),
    "char": ("char(4)", "char(40)", "'a'", "'abcdefgh'"),
    "numeric": ("numeric(5)", "numeric(9)", "1", "123456789"),
    "bit": ("bit(4)", "bit(8) USING id::bit(8)", "B'1000'", "B'11110000'"),
    "bit varying": ("bit varying(4)", "bit varying(8)", "B'1000'", "B'11110000'"),
    "timestamp": ("timestamp(0)", "timestamp(6)", "'2026-11-27'", "'2026-11-27 12:00:00.5'"),
    "interval": ("interval(0)", "interval(6)", "'1 s'", "'0.5 s'"),
    "int": ("int", "bigint", "1", "1099511627776"),
    "text to uuid": ("text", "uuid USING id::uuid", "md5('a')", "gen_random_uuid()"),
    "domain": ("short", "varchar(40)", "'a'", "'abcdefgh'"),
    "domain to another": ("short", "long", "'a'", "'abcdefgh'"),
}
FAMILIES = {
    "ordinary": "CREATE TABLE docs (id {} PRIMARY KEY, body text)",
    "composite": "CREATE TABLE docs (n int DEFAULT 1, id {}, body text, PRIMARY KEY (n, id))",
    "partitioned": """CREATE TABLE docs (id {}, body text, n int DEFAULT 1, PRIMARY KEY (n, id))
        PARTITION BY LIST (n); CREATE TABLE docs_1 PARTITION OF docs FOR VALUES IN (1)""",
    "inherited": "CREATE TABLE docs (id {} PRIMARY KEY, body text); CREATE TABLE docs_1 () INHERITS (docs)",
}
STATEMENTS = """
INSERT INTO {table} (id, body) VALUES ({value}, 'one');
UPDATE {table} SET body = 'two';
MERGE INTO {table} AS d USING (SELECT {value} AS id) AS s ON d.body = 'two'
 WHEN MATCHED THEN UPDATE SET body = 'three' WHEN NOT MATCHED THEN INSERT (body) VALUES ('never');
DELETE FROM {table}
"""
OLD_SNAPSHOTS = ["REPEATABLE READ", "SERIALIZABLE"]


@pytest.fixture
def domains(app: Connection) -> Connection:
    app.execute("CREATE DOMAIN short AS varchar(4)")
    app.execute("CREATE DOMAIN long AS varchar(40)")
    return app


def keep(url: str, app: Connection, table: str) -> None:
    app.execute(table.encode())
    backfill(settings_for(url, sync_of("docs", target={"type": "real[]"})), NullEncoder())


def write(session: Connection, table: str, value: str) -> None:
    for statement in STATEMENTS.format(table=table, value=value).split(";"):
        session.execute(statement.encode())


CASES = [("READ COMMITTED", "ordinary", kind) for kind in WIDENED]
CASES += [
    ("READ COMMITTED", family, kind) for family in list(FAMILIES)[1:] for kind in ("varchar", "numeric")
]
CASES += [(isolation, "ordinary", kind) for isolation in OLD_SNAPSHOTS for kind in ("varchar", "int")]


@pytest.mark.parametrize(("isolation", "family", "kind"), CASES)
def test_a_value_that_did_not_fit_is_taken(
    either_url: str, domains: Connection, family: str, kind: str, isolation: str
) -> None:
    """In a session that remembers the table as it was, and in a transaction that began before."""
    old, new, fits, value = WIDENED[kind]
    keep(either_url, domains, FAMILIES[family].format(old))
    with psycopg.connect(either_url, autocommit=True) as session:
        write(session, "docs", fits)
        assert count(domains, "freshvec.queue_docs") == 4
        with session.transaction():
            session.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}".encode())
            session.execute("SELECT 1")
            domains.execute(f"ALTER TABLE docs ALTER id TYPE {new}".encode())
            write(session, "docs", value)
            if "docs_1" in FAMILIES[family]:
                write(session, "docs_1", value)
    assert count(domains, "freshvec.queue_docs") == 4
    assert count(domains, "freshvec.rescan WHERE reason = 'the table has changed'") == 1
