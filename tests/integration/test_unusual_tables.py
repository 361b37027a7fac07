"""Tables that are unusual and kept all the same: by their names, or by their many or generated columns."""

from functools import partial
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr

from freshvec.db import connect
from freshvec.proposal.propose import propose, sync_names
from freshvec.proposal.survey import survey
from freshvec.scans.retry import retry
from freshvec.scans.verify import verify
from freshvec.schema import script
from freshvec.schema.plan import plan
from tests.support import (
    Connection,
    NullEncoder,
    backfill,
    bound_sync,
    count,
    models_in,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
)


def is_empty(application: Connection, place: int) -> bool:
    return count(application, f"freshvec.queue_s{place}") == 0


NAMES = [
    "old",
    "new",
    "found",
    "k1",
    "seq",
    "bulk",
    "place",
    "n",
    "o",
    "d",
    "t",
    "k",
    "g",
    "noted",
    "queue",
    "text",
]
NAMES += [
    "unchanged",
    "characters",
    "slot",
    "tg_op",
    "new_rows",
    "old_rows",
    "pair",
    "embedded",
    "failed",
    "is_embedded",
    "problem",
]


@pytest.mark.parametrize("version", ["18", "16"])
def test_columns_called_as_ours_are(version: str, request: pytest.FixtureRequest) -> None:
    """Every such name as a column of the key, and as a column of the text, of one table each."""
    url: str = request.getfixturevalue("url" if version == "18" else "url16")
    with psycopg.connect(url, autocommit=True) as application:
        notices: list[str] = []
        application.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
        declared = []
        for place, name in enumerate(NAMES):
            other = NAMES[place - 1]
            table, key, text = (sql.Identifier(part) for part in (f"t{place}", name, other))
            application.execute(
                sql.SQL("CREATE TABLE {} ({} int PRIMARY KEY, {} text)").format(table, key, text)
            )
            application.execute(sql.SQL("INSERT INTO {} VALUES (1, 'one'), (2, 'two')").format(table))
            declared.append(sync_of(f"t{place}", f"s{place}", columns=[other, name]))
        settings, encoder = settings_for(url, *declared, sweep_seconds=600), NullEncoder()
        with running(settings, encoder) as worker:
            wait_fresh(worker)
            for place, name in enumerate(NAMES):
                table, key, text = (sql.Identifier(part) for part in (f"t{place}", name, NAMES[place - 1]))
                application.execute(
                    sql.SQL("UPDATE {} SET {} = 'edited' WHERE {} = 1").format(table, text, key)
                )
                application.execute(sql.SQL("UPDATE {0} SET {1} = 7 WHERE {1} = 2").format(table, key))
                until(f"{name} is read", partial(is_empty, application, place))
            wait_fresh(worker)
        assert notices == []
        for number, name in enumerate(NAMES):
            with connect(settings.database.url, "test") as connection:
                report = verify(
                    connection, bound_sync(connection, settings_for(url, declared[number]), encoder)
                )
            assert report.is_fresh, (name, report)


@pytest.mark.parametrize("version", ["18", "16"])
def test_150_columns(version: str, request: pytest.FixtureRequest) -> None:
    url: str = request.getfixturevalue("url" if version == "18" else "url16")
    with psycopg.connect(url, autocommit=True) as application:
        columns = [f"c{number}" for number in range(150)]
        application.execute(f"CREATE TABLE docs (id int PRIMARY KEY, {' text, '.join(columns)} text)")
        application.execute("INSERT INTO docs (id, c0, c149) VALUES (1, 'a', 'b')")
        settings, encoder = (
            settings_for(url, sync_of("docs", columns=columns), sweep_seconds=600),
            NullEncoder(),
        )
        with running(settings, encoder) as worker:
            wait_fresh(worker)
            application.execute("UPDATE docs SET c77 = 'c'")
            query = "docs_embedding WHERE content_hash = substring(sha256(E'a\\nc\\nb') FROM 1 FOR 16)"
            until("the change is written", lambda: count(application, query) == 1)


def test_virtual_generated_columns(url: str, application: Connection) -> None:
    application.execute(
        "CREATE TABLE docs (id int PRIMARY KEY, a text, b text,"
        " v text GENERATED ALWAYS AS (a || b) VIRTUAL, s text GENERATED ALWAYS AS (upper(b)) STORED)"
    )
    application.execute("INSERT INTO docs VALUES (1, 'x', 'y')")
    for declared, text in (
        (sync_of("docs", "one", columns=["v"], target={"table": "one"}), "pq"),
        (sync_of("docs", "two", expression="v || s", target={"table": "two"}), "pqQ"),
    ):
        application.execute("UPDATE docs SET a = 'x', b = 'y'")
        settings, encoder = settings_for(url, declared, sweep_seconds=600), NullEncoder()
        with running(settings, encoder) as worker:
            wait_fresh(worker)
            application.execute("UPDATE docs SET a = 'p'; UPDATE docs SET b = 'q'")
            name = declared["name"]
            query = f"{name} WHERE content_hash = substring(sha256('{text}') FROM 1 FOR 16)"
            until("it is written", lambda query=query: count(application, query) == 1)  # type: ignore[misc]
            assert not count(application, "freshvec.rescan")


def test_a_role_whose_transactions_are_read_only(url: str, docs: Connection) -> None:
    docs.execute("INSERT INTO docs VALUES (1, 'one')")
    (name,) = docs.execute("SELECT current_database()").fetchone() or ("",)
    docs.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    backfill(settings_for(url, sync_of("docs")), NullEncoder())
    docs.execute("SET default_transaction_read_only = off")
    assert count(docs, "docs_embedded") == 1


def test_names_with_percent_signs(url: str, application: Connection) -> None:
    """What has no values to fill in says so to the driver, which else leaves each sign doubled."""
    application.execute('CREATE SCHEMA "100%"')
    made = """
CREATE TABLE "100%"."t%s" ("k%s" int PRIMARY KEY, "b%s" text) PARTITION BY RANGE ("k%s");
CREATE TABLE "100%"."p%s" PARTITION OF "100%"."t%s" FOR VALUES FROM (0) TO (1000);
CREATE TABLE "100%"."q%s" ("k%s" int PRIMARY KEY, "b%s" text);
INSERT INTO "100%"."q%s" VALUES (1001, 'a partition that comes later');
INSERT INTO "100%"."t%s" SELECT n, 'a text that is long enough to be prose, number ' || n
  FROM generate_series(1, 50) AS n
"""
    application.execute(made.encode())
    source, encoder = '"100%"."t%s"', NullEncoder(refuse="number 7")
    for index, expression in (({}, '"b%s"'), ({"m": 4}, """'100% ' || "b%s" """)):
        declared = sync_of(source, expression=expression, index=index)
        backfill(settings_for(url, declared), encoder)
        assert count(application, "freshvec.indexes WHERE is_valid") == 1
    attach = 'ALTER TABLE "100%"."t%s" ATTACH PARTITION "100%"."q%s" FOR VALUES FROM (1000) TO (2000)'
    application.execute(attach.encode())
    settings = settings_for(url, declared)
    backfill(settings, encoder)
    assert count(application, '"100%"."t%s_embedding" WHERE embedding IS NOT NULL') == 50
    with connect(settings.database.url, "test") as connection:
        assert retry(connection, bound_sync(connection, settings, encoder)) == 1
        (table,) = survey(connection, (source,)).tables
        other = settings_for(url, declared | {"index": {"m": 8}}).sync[0]
        planned = plan(connection, other, bound_sync(connection, settings, encoder).model)
        shown = script.of_plans(connection, [], [planned])
    assert 'ON "100%"."t%s_embedding" USING' in shown
    assert (table.trouble, len(table.rows)) == ("", 51)
    assert table.columns[0].is_prose


def test_long_names_that_begin_alike_give_each_sync_a_name_of_its_own(
    url: str, application: Connection, models_dir: Path
) -> None:
    for letter in "xyz":
        name = "a" * 60 + letter
        made = f"CREATE TABLE {name} (id int PRIMARY KEY, body text)"
        filled = f"INSERT INTO {name} SELECT n, 'a text that is long enough to be prose, number ' || n"
        application.execute(f"{made}; {filled} FROM generate_series(1, 20) AS n".encode())
    with connect(SecretStr(url), "test") as connection:
        found = survey(connection)
    proposed = propose(found, models_in(models_dir), None, (), measure=False)
    names = sync_names(proposed.candidates)
    assert (len(names), len(set(names))) == (3, 3)
