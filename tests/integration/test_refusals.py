"""What cannot be kept is refused at `plan` with the reason and the remedy; what can, is."""

from typing import Any, cast

import psycopg
import pytest

from freshvec.db import connect
from freshvec.errors import FreshvecError
from freshvec.scans.verify import verify
from tests.support import (
    Connection,
    NullEncoder,
    backfill,
    bound_sync,
    count,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
)

FUNCTIONS = """
CREATE FUNCTION drawn(text) RETURNS text LANGUAGE sql VOLATILE AS 'SELECT $1';
CREATE FUNCTION looked_up(text) RETURNS text LANGUAGE sql STABLE AS 'SELECT $1';
CREATE FUNCTION plain(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT upper($1)';
CREATE FUNCTION many(text) RETURNS SETOF text LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE OPERATOR @@@ (LEFTARG = text, RIGHTARG = text, FUNCTION = drawn2);
CREATE TABLE other (id int PRIMARY KEY, name text)
"""
DOCS = "CREATE TABLE docs (id int PRIMARY KEY, body text, at timestamptz, n int, more jsonb, names text[])"
IMMUTABLE = "Write an expression over the row's own columns, of IMMUTABLE functions."
REFUSED = {
    "aggregate": ("max(body)", "it has an aggregate function, which is over many rows"),
    "window": ("row_number() OVER ()", "it has a window function"),
    "random": ("body || random()", "function pg_catalog.random is VOLATILE"),
    "now": ("body || now()", "function pg_catalog.now is STABLE"),
    "clock": ("body || clock_timestamp()", "function pg_catalog.clock_timestamp is VOLATILE"),
    "current date": ("body || current_date", "it depends on the current time or user"),
    "current user": ("body || current_user", "it depends on the current time or user"),
    "setting": ("body || current_setting('timezone')", "function pg_catalog.current_setting is STABLE"),
    "subquery": ("(SELECT body)", "it has a subquery"),
    "other table": ("(SELECT name FROM public.other o WHERE o.id = docs.id)", "public.other|other|subquery"),
    "volatile": ("public.drawn(body)", "function public.drawn is VOLATILE"),
    "stable": ("public.looked_up(body)", "function public.looked_up is STABLE"),
    "operator": ("body OPERATOR(public.@@@) body", "function public.drawn2 is VOLATILE"),
    "set": ("public.many(body)", "gives several values for one row|must not return a set"),
    "cast to a time": ("body::timestamptz", "it casts text to a date or time, where 'now' is a value too"),
    "cast to a date": ("body::date", "it casts text to a date or time"),
    "cast within a cast": ("(n::text || '-01-01')::date::text", "it casts text to a date or time"),
    "cast of a varchar": ("lower(body::varchar)::timestamptz", "it casts text to a date or time"),
    "cast to times": ("body::timestamptz[]::text", "it casts text to a date or time"),
    "cast to a range": ("body::daterange::text", "it casts text to a date or time"),
    "now as a word": ("(at < 'now')::text || body", "it depends on the current time"),
    "age": ("age(at)::text", "function pg_catalog.age is STABLE"),
    "ctid": ("ctid::text || body", "it reads a system column"),
    "xmin": ("xmin::text || body", "it reads a system column"),
    "sequence": (
        "nextval('public.numbers')::text || body",
        "it reads public.numbers, and no trigger sees a change there",
    ),
    "file": ("pg_read_file(body)", "function pg_catalog.pg_read_file is VOLATILE"),
}
ACCEPTED = {
    "concat": "concat(body, ' ', n)",
    "concat_ws": "concat_ws(' ', body, at, n)",
    "format": "format('%s: %s%%', body, n)",
    "to_char": "to_char(at, 'YYYY-MM-DD HH24:MI') || body",
    "JSON": "coalesce(more->>'title', body)",
    "JSON path": "coalesce(more #>> '{a,b}', more::text, body)",
    "array": "array_to_string(names, ', ') || body",
    "name of the table": "docs.body",
    "row": "docs::text",
    "own function": "public.plain(body)",
    "percent": "body || '100%'",
    "regular expression": "regexp_replace(body, '[%s]', '', 'g')",
    "case": "CASE WHEN n > 1 THEN body ELSE upper(left(body, 10)) END",
    "time of the row": "(at AT TIME ZONE 'UTC')::text || date_trunc('day', at)::text || body",
}


@pytest.fixture
def table(application: Connection) -> Connection:
    application.execute(DOCS)
    application.execute(
        "CREATE FUNCTION drawn2(text, text) RETURNS text LANGUAGE sql VOLATILE AS 'SELECT $1'"
    )
    application.execute(FUNCTIONS)
    application.execute("CREATE SEQUENCE numbers")
    application.execute(
        """INSERT INTO docs SELECT g, 'text ' || g, '2026-01-01', g, '{"title": "title"}', '{a,b}'
             FROM generate_series(1, 3) g"""
    )
    return application


def refusal(url: str, **declared: object) -> str:
    settings = settings_for(url, sync_of("docs", **cast(Any, declared)))
    with connect(settings.database.url, "test") as connection, pytest.raises(FreshvecError) as refused:
        bound_sync(connection, settings, NullEncoder())
    return str(refused.value)


def test_what_is_not_of_the_row_is_refused(url: str, table: Connection) -> None:
    wrong = []
    for name, (expression, reason) in REFUSED.items():
        message = refusal(url, expression=expression)
        if not any(part in message for part in reason.split("|")) or not message.endswith("."):
            wrong.append(f"{name}: {message}")
        if "sync 'docs'" not in message:
            wrong.append(f"{name} names no sync: {message}")
    assert not wrong, "\n".join(wrong)
    assert count(table, "pg_class WHERE relname = 'freshvec_probe'") == 0


def test_a_condition_that_is_not_of_the_row_is_refused(url: str, table: Connection) -> None:
    for condition in ("at <= now()", "random() < 0.5", "id IN (SELECT id FROM public.other)"):
        message = refusal(url, where=condition)
        assert "sync 'docs'" in message
        assert message.endswith(IMMUTABLE), message


def test_what_is_of_the_row_is_kept(url: str, table: Connection) -> None:
    """Each accepted expression is applied, and a change of what it reads is noticed without a warning."""
    declared = [
        sync_of("docs", f"s{place}", expression=expression, target={"table": f"t{place}"})
        for place, expression in enumerate(ACCEPTED.values())
    ]
    settings, encoder = settings_for(url, *declared, sweep_seconds=600), NullEncoder()
    notices: list[str] = []
    table.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    with running(settings, encoder) as worker:
        wait_fresh(worker)
        table.execute(
            "UPDATE docs SET body = 'other', more = NULL, n = 9, at = at + interval '1 hour', names = '{c}'"
        )
        table.execute("INSERT INTO docs VALUES (4, 'new', '2026-02-02', 1, '{}', '{}')")
        for place, name in enumerate(ACCEPTED):
            queue = f"freshvec.queue_s{place}"
            until(f"{name} is read", lambda queue=queue: not count(table, queue))  # type: ignore[misc]
        wait_fresh(worker)
        assert not count(table, "freshvec.rescan")
    assert notices == []
    for number, sync in enumerate(settings.sync):
        one = settings_for(url, declared[number])
        with connect(settings.database.url, "test") as connection:
            report = verify(connection, bound_sync(connection, one, encoder))
        assert report.is_fresh, (sync.expression, report)
        assert report.rows == 4
        assert count(table, f"t{number}") == 4, sync.expression


def test_a_deferrable_key_is_refused_as_such(url: str, application: Connection) -> None:
    application.execute("CREATE TABLE docs (id int PRIMARY KEY DEFERRABLE, body text)")
    message = refusal(url)
    assert "its key 'docs_pkey' is DEFERRABLE" in message
    assert "Give it a unique index on NOT NULL columns that is checked at once" in message
    application.execute("CREATE UNIQUE INDEX ON docs (id)")
    backfill(settings_for(url, sync_of("docs")), NullEncoder())


def test_a_foreign_partition_is_refused(url15: str) -> None:
    with psycopg.connect(url15, autocommit=True) as application:
        application.execute(
            "CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw"
        )
        application.execute("CREATE TABLE docs (id int, body text) PARTITION BY RANGE (id)")
        application.execute("CREATE TABLE near PARTITION OF docs FOR VALUES FROM (0) TO (9)")
        application.execute(
            "CREATE FOREIGN TABLE away PARTITION OF docs FOR VALUES FROM (9) TO (99) SERVER far"
        )
        application.execute("ALTER TABLE near ADD PRIMARY KEY (id)")
        application.execute("CREATE TABLE parent (id int PRIMARY KEY, body text)")
        application.execute("CREATE FOREIGN TABLE child () INHERITS (parent) SERVER far")
    settings = settings_for(url15, sync_of("parent", target={"type": "real[]"}))
    with connect(settings.database.url, "test") as connection, pytest.raises(FreshvecError) as refused:
        bound_sync(connection, settings, NullEncoder())
    assert "its partition or child public.child is a foreign table" in str(refused.value)
    assert "Detach it, or name the tables that are here" in str(refused.value)
