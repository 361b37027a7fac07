"""What cannot be kept is refused at `plan` with the reason and the remedy; what can, is; every mistake ends
in one message."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from psycopg import sql

from freshvec.db import connect
from freshvec.errors import FreshvecError
from freshvec.scans.verify import verify
from tests.support import (
    DOCS_SYNC,
    Connection,
    NullEncoder,
    backfill,
    bound_sync,
    config_toml,
    count,
    freshvec,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
    write_config,
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


def is_empty(application: Connection, place: int) -> bool:
    return count(application, f"freshvec.queue_s{place}") == 0


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


def test_a_deferrable_key_is_refused_as_such(url: str, application: Connection) -> None:
    application.execute("CREATE TABLE docs (id int PRIMARY KEY DEFERRABLE, body text)")
    message = refusal(url)
    assert "its key 'docs_pkey' is DEFERRABLE" in message
    assert "Give it a unique index on NOT NULL columns that is checked at once" in message
    application.execute("CREATE UNIQUE INDEX ON docs (id)")
    backfill(settings_for(url, sync_of("docs")), NullEncoder())


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


def one_message(done: "subprocess.CompletedProcess[str]", code: int) -> str:
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "should not have happened" not in done.stderr
    return done.stderr


def test_commands_before_apply(url: str, docs: Connection, models_dir: Path, tmp_path: Path) -> None:
    config = str(write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC)))
    assert "run `freshvec apply docs`" in freshvec("status", "--config", config).stderr
    for command in (["retry"], ["verify"], ["search", "words"]):
        message = one_message(freshvec(*command, "--config", config), 1)
        assert "freshvec apply" in message, (command, message)
    assert freshvec("apply", "--config", config).returncode == 0
    more = DOCS_SYNC + DOCS_SYNC.replace('name = "docs"', 'name = "later"') + 'target = { table = "later" }\n'
    config = str(write_config(tmp_path / "more.toml", config_toml(url, models_dir, more)))
    done = freshvec("status", "--check", "--config", config)
    assert "later: declared, but never applied: run `freshvec apply later`" in one_message(done, 3)
    done = freshvec("status", "--check", "--json", "--config", config)
    assert [row["sync"] for row in json.loads(done.stdout)] == ["docs"]


def test_plan_without_rights_on_the_schema(
    url: str, docs: Connection, models_dir: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC))
    assert freshvec("apply", "--config", str(config)).returncode == 0
    docs.execute("CREATE ROLE freshvec_test_stranger LOGIN")
    stranger = config_toml(url.replace("postgres:@", "freshvec_test_stranger:@"), models_dir, DOCS_SYNC)
    try:
        write_config(config, stranger)
        for command in ("plan", "apply", "status", "verify", "retry"):
            message = one_message(freshvec(command, "--config", str(config)), 1)
            assert "permission denied" in message
            assert "Grant the right, or connect as the table's owner" in message
    finally:
        docs.execute("DROP ROLE freshvec_test_stranger")


def test_arguments_that_are_no_text(url: str, models_dir: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC))
    for arguments in ([b"search", b"\xff"], [b"run", b"na\xc3me"], [b"status", b"--config", b"/\xff"]):
        command = [sys.executable.encode(), b"-m", b"freshvec", *arguments, b"--config", bytes(config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "is not text in UTF-8" in one_message(done, 2)


def test_json_of_a_repair_is_json(url: str, docs: Connection, models_dir: Path, tmp_path: Path) -> None:
    config = str(write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC)))
    assert freshvec("apply", "--config", config).returncode == 0
    docs.execute("ALTER TABLE docs DISABLE TRIGGER USER; INSERT INTO docs VALUES (1, 'unseen')")
    done = freshvec("verify", "--repair", "--json", "--config", config)
    one_message(done, 3)
    assert json.loads(done.stdout)["problems"] == {"missing": 1}
    assert "queued for the worker" in done.stderr


@pytest.mark.parametrize(
    "password", ["gehe@imnis", "gehe/imnis", "gehe@im/nis@more", "gehe:im@nis", "gehe?im#nis@more"]
)
def test_a_password_that_should_have_been_quoted(models_dir: Path, tmp_path: Path, password: str) -> None:
    url = f"postgresql://app:{password}@127.0.0.1:1/base"
    config = str(write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC)))
    message = one_message(freshvec("status", "--config", config), 1)
    assert "gehe" not in message, message
    assert "imnis" not in message, message
    assert "cannot connect to the database" in message


LOGS = "from freshvec import logs; from loguru import logger; logs.configure(); logger.warning('a line')"


def test_priorities_are_for_the_journal_alone(tmp_path: Path) -> None:
    """systemd: a program should compare JOURNAL_STREAM with the device and inode of its stderr."""
    with (tmp_path / "stderr").open("w+") as file:
        stat = os.fstat(file.fileno())
        for stream, prefix in ((f"{stat.st_dev}:{stat.st_ino}", "<4>"), ("8:12345", ""), ("", ""), ("x", "")):
            file.seek(0)
            file.truncate()
            env = {**os.environ, "JOURNAL_STREAM": stream}
            subprocess.run([sys.executable, "-c", LOGS], stderr=file, env=env, check=True)
            file.seek(0)
            line = file.read()
            assert "a line" in line
            assert line.startswith("<") == bool(prefix), (stream, line)
            assert line.startswith(prefix)


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
