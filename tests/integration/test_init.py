"""`freshvec init`: what is found in a database, what is proposed, and the file that is written."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from freshvec import config, storage
from freshvec.cli import init_view
from freshvec.db import connect
from freshvec.errors import SchemaError
from freshvec.proposal.file import without_password
from freshvec.proposal.propose import Proposal, propose
from freshvec.proposal.survey import Survey, Table, survey
from tests.support import (
    MODEL,
    Connection,
    NullEncoder,
    backfill,
    freshvec,
    models_in,
    settings_for,
    sync_of,
    write_config,
)

PROSE = "'How to bake bread number ' || n || ' from flour, water, salt and a night of patience.'"
SHOP = f"""
CREATE TABLE articles (id bigint PRIMARY KEY, slug text, title varchar(200), body text, author_email text,
                       password_hint text, note text);
INSERT INTO articles SELECT n, 'bake-' || n, 'Bread ' || n, repeat({PROSE}, 3), n || '@x.org', {PROSE}, 'none'
  FROM generate_series(1, 300) AS n;
CREATE TABLE comments (id bigint, day date, body text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE comments_1 PARTITION OF comments FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
INSERT INTO comments SELECT n, '2026-01-05', {PROSE} FROM generate_series(1, 100) AS n;
CREATE TABLE keyless (body text);
CREATE TABLE numbers (id bigint PRIMARY KEY, amount numeric);
CREATE TEMPORARY TABLE passing (id bigint PRIMARY KEY, body text);
"""


@pytest.fixture
def shop(application: Connection) -> Connection:
    application.execute(SHOP.encode())
    return application


def look(url: str, *names: str) -> Survey:
    with connect(SecretStr(url), "test") as connection:
        return survey(connection, names)


def proposal(found: Survey, models_dir: Path, model: str | None = None, *columns: str) -> Proposal:
    return propose(found, models_in(models_dir), model, columns, measure=False)


def named(found: Survey, name: str) -> Table:
    (table,) = [table for table in found.tables if table.full_name == name]
    return table


def test_tables_with_texts_are_found_and_nothing_else(url: str, shop: Connection) -> None:
    backfill(settings_for(url, sync_of("comments")), NullEncoder())
    names = {table.full_name for table in look(url).tables}
    assert names == {"public.articles", "public.comments", "public.keyless"}


def test_vectors_that_are_there_already_are_pointed_out(url: str, shop: Connection, models_dir: Path) -> None:
    shop.execute("ALTER TABLE articles ADD embedding vector(384)")
    found = look(url)
    proposed = proposal(found, models_dir)
    assert named(found, "public.articles").vectors == ("embedding",)
    assert named(found, "public.comments").vectors == ()
    shown = " ".join(" ".join(init_view.proposed(proposed, [proposed.candidates[0]])).split())
    assert "has vectors already, in embedding: `freshvec plan --adopt auto` tells" in shown


def test_prose_and_headings_are_taken_and_neither_codes_nor_secrets(
    url: str, shop: Connection, models_dir: Path
) -> None:
    found = look(url)
    first = proposal(found, models_dir).candidates[0]
    assert (first.table.full_name, first.columns) == ("public.articles", ("title", "body"))
    assert first.cost.rows == 300
    reasons = {column.name: column.reason for column in first.table.columns}
    assert "secret" in reasons["password_hint"]
    assert "code or an address" in reasons["author_email"]
    assert reasons["note"] == "0% of its values are distinct"


def test_a_table_without_key_is_shown_with_the_command_that_gives_it_one(url: str, shop: Connection) -> None:
    table = named(look(url), "public.keyless")
    assert "no primary key" in table.trouble
    shop.execute(table.remedy.encode())
    assert not named(look(url), "public.keyless").trouble


@pytest.mark.parametrize(
    ("ddl", "trouble"),
    [
        ("REVOKE SELECT ON articles FROM reader_of_some", "may not read"),
        ("ALTER TABLE articles ENABLE ROW LEVEL SECURITY", "row security hides"),
    ],
)
def test_what_a_role_cannot_see_is_said(url: str, shop: Connection, ddl: str, trouble: str) -> None:
    shop.execute(
        "CREATE ROLE reader_of_some LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader_of_some"
    )
    try:
        shop.execute(ddl.encode())
        found = look(url.replace("postgres:@", "reader_of_some:@"))
        assert trouble in named(found, "public.articles").trouble
        assert not named(found, "public.comments").trouble
    finally:
        shop.execute("DROP OWNED BY reader_of_some; DROP ROLE reader_of_some")


def test_a_grant_that_is_shown_gives_the_right(url: str, shop: Connection) -> None:
    shop.execute('CREATE SCHEMA "Own"; CREATE TABLE "Own".notes (LIKE articles INCLUDING ALL)')
    shop.execute('CREATE ROLE "Reader of none" LOGIN')
    asked = url.replace("postgres:@", "Reader%20of%20none:@")
    try:
        shop.execute(named(look(asked), '"Own".notes').remedy.encode())
        assert not named(look(asked), '"Own".notes').trouble
    finally:
        shop.execute('DROP OWNED BY "Reader of none"; DROP ROLE "Reader of none"')


def test_a_locked_table_keeps_nothing_else_from_being_found(url: str, shop: Connection) -> None:
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE articles IN ACCESS EXCLUSIVE MODE")
        found = look(url)
    assert "lock timeout" in named(found, "public.articles").trouble
    assert not named(found, "public.comments").trouble


def test_a_large_table_is_read_in_a_small_part(url: str, docs: Connection, models_dir: Path) -> None:
    late = f"CASE WHEN n > 30000 THEN {PROSE} ELSE repeat(' ', 90) END"  # the first rows tell little
    docs.execute(f"INSERT INTO docs SELECT n, {late} FROM generate_series(1, 60000) AS n".encode())
    docs.execute("ANALYZE docs")
    read = "SELECT pg_stat_clear_snapshot(), pg_stat_get_tuples_returned('docs'::regclass)"
    docs.execute("SELECT pg_stat_reset()")
    found = look(url)
    assert named(found, "public.docs").extent is not None
    cost = proposal(found, models_dir).candidates[0].cost
    assert cost.rows == pytest.approx(60000, rel=0.05)
    assert 3000 < cost.texts < 57000, "rows of both halves are seen"
    (_, rows) = docs.execute(read).fetchone() or (0, 0)
    assert rows < 6000


def test_many_small_partitions_are_a_large_table(url: str, docs: Connection) -> None:
    docs.execute("INSERT INTO docs SELECT n, 'text' FROM generate_series(1, 50) AS n")
    docs.execute("CREATE TABLE parts (id int PRIMARY KEY, body text) PARTITION BY RANGE (id)")
    for n in range(20):
        docs.execute(
            f"CREATE TABLE parts_{n} PARTITION OF parts FOR VALUES FROM ({n * 9}) TO ({n * 9 + 9})".encode()
        )
    docs.execute("INSERT INTO parts SELECT n, 'text' FROM generate_series(0, 179) AS n")
    docs.execute("SELECT pg_stat_force_next_flush()")
    docs.execute("SELECT 1")
    assert [table.name for table in look(url).tables] == ["parts", "docs"]


def test_a_table_that_is_named_is_looked_at_alone(url: str, shop: Connection, models_dir: Path) -> None:
    shop.execute(
        'CREATE SCHEMA "Shop"; CREATE TABLE "Shop"."Order ""lines""" (id int PRIMARY KEY, body text)'
    )
    (table,) = look(url, '"Shop"."Order ""lines"""').tables
    assert storage.split_name(table.full_name) == ("Shop", 'Order "lines"')
    with pytest.raises(SchemaError, match="no such table"):
        look(url, "public.nothing")
    with pytest.raises(SchemaError, match=r"'titel'.*columns of text are: slug, title, body"):
        proposal(look(url, "articles"), models_dir, None, "titel")


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("'Short enough for it ' || n", MODEL),
        (f"repeat({PROSE}, 60)", "bge-small-en-v1.5"),
        (
            "'Wie man Brötchen backt, über Nacht gärt und für Gäste schön süß macht ' || n",
            "multilingual-e5-small",
        ),
    ],
)
def test_a_model_is_proposed_that_suits_the_texts(
    url: str, docs: Connection, models_dir: Path, tmp_path: Path, text: str, model: str
) -> None:
    rows = f"SELECT n, {text} || ' and so on, and so forth' FROM generate_series(1, 50) AS n"
    docs.execute(f"INSERT INTO docs {rows}".encode())
    found = look(url)
    assert proposal(found, tmp_path).choice.card.name == model
    choice = proposal(found, models_dir).choice
    assert choice.card.name == MODEL
    assert choice.is_exported
    assert (f"--model {model}" in choice.advice) == (model != MODEL)


def test_the_file_is_sound_and_says_what_was_left_out(
    url: str, shop: Connection, models_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "made" / "freshvec.toml"
    options = ["--url", url, "--output", str(path), "--models-dir", str(models_dir), "--no-measure"]
    done = freshvec("init", "--yes", *options)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80 + len(str(path))
    settings = config.load(path)
    assert [(sync.name, sync.table, sync.columns) for sync in settings.sync] == [
        ("articles", "public.articles", ("title", "body"))
    ]
    written = path.read_text()
    head, _, others = written.partition("# Found as well")
    freed = head + "\n".join(line.removeprefix("# ") for line in others.splitlines()[1:])
    path_of_all = write_config(path.with_name("freed.toml"), freed)
    assert [sync.name for sync in config.load(path_of_all).sync] == ["articles", "comments"]
    again = freshvec("init", "--yes", *options, "--url", "host=/nowhere")  # is not even looked at
    assert (again.returncode, path.read_text()) == (1, written)
    assert "--force" in again.stderr
    assert freshvec("init", "--yes", "--force", "--table", "comments", *options).returncode == 0
    assert config.load(path).sync[0].name == "comments"


def test_with_nobody_to_ask_it_says_which_option_to_give(tmp_path: Path) -> None:
    done = freshvec("init", "--output", str(tmp_path / "freshvec.toml"))
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_service_can_read_the_file_whatever_the_umask(
    url: str, shop: Connection, models_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "etc/freshvec/freshvec.toml"
    before = os.umask(0o077)
    try:
        options = ["--models-dir", str(models_dir), "--no-measure", "--output", str(path)]
        assert freshvec("init", "--yes", "--url", url, *options).returncode == 0
    finally:
        os.umask(before)
    assert [each.stat().st_mode & 0o777 for each in (path, path.parent, path.parent.parent)] == [
        0o644,
        0o755,
        0o755,
    ]


@pytest.mark.parametrize(
    ("answer", "names"), [("\n", ["articles"]), ("2\n", ["comments"]), ("9\n1,2\n", None)]
)
def test_it_asks_once(
    url: str, shop: Connection, models_dir: Path, tmp_path: Path, answer: str, names: list[str] | None
) -> None:
    path = tmp_path / "freshvec.toml"
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "freshvec", "init", "--url", url, "--output", str(path)]
    command += ["--models-dir", str(models_dir), "--no-measure"]
    os.write(ours, answer.encode())
    done = subprocess.run(command, stdin=theirs, capture_output=True, text=True, check=False)
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 0, done.stderr
    assert [sync.name for sync in config.load(path).sync] == (names or ["articles", "comments"])


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("postgresql://me:s3cret@localhost/shop", "postgresql://me@localhost/shop"),
        (
            "postgresql://me:s3%40cret@h1,h2:5433/shop?sslmode=require",
            "postgresql://me@h1,h2:5433/shop?sslmode=require",
        ),
        ("postgresql://localhost/shop?user=me&password=s3cret", "user=me dbname=shop host=localhost"),
        ("host=localhost password=s3cret dbname=shop", "dbname=shop host=localhost"),
        ("postgresql://me@localhost/shop", "postgresql://me@localhost/shop"),
        ("", ""),
    ],
)
def test_no_password_is_written(given: str, written: str) -> None:
    assert without_password(given) == (written, given != written)


def test_an_empty_database_says_so(url: str, models_dir: Path) -> None:
    with pytest.raises(SchemaError, match="no table with a column of text"):
        proposal(look(url), models_dir)
