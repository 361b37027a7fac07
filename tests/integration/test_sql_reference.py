"""docs/sql.md has every object that is made in a database, as it is, and none that is not made."""

import re

import pytest

from freshvec.db import connect
from freshvec.records import Model
from freshvec.schema import migrations
from freshvec.schema.apply import apply
from tests.acceptance.reader import blocks
from tests.support import MODEL, REPOSITORY, Connection, NullEncoder, settings_for, sync_of

PAGE = "docs/sql.md"
NULL = Model(MODEL, NullEncoder.dimension, 256, NullEncoder.fingerprint)
RELATIONS = """
SELECT CASE nspname WHEN 'freshvec' THEN 'freshvec.' ELSE '' END || relname
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 WHERE nspname IN ('freshvec', 'public') AND relkind IN ('r', 'p', 'v', 'm', 'S')
   AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype IN ('e', 'i', 'a'))
"""
FUNCTIONS = """
SELECT format('freshvec.%s(%s)', proname,
              regexp_replace(pg_get_function_identity_arguments(p.oid), ',? ?OUT .*', ''))
  FROM pg_proc AS p WHERE pronamespace = 'freshvec'::regnamespace
"""


@pytest.fixture
def shop(url: str, application: Connection) -> Connection:
    """A database in which a sync is applied."""
    application.execute("CREATE TABLE articles (id bigint PRIMARY KEY, title text, body text)")
    settings = settings_for(url, sync_of("articles", name="articles"))
    with connect(settings.database.url, "test") as connection:
        migrations.migrate(connection)
        apply(connection, settings.sync[0], NULL)
    return application


def sections() -> dict[str, str]:
    """What stands under each heading that is the name of an object."""
    text = (REPOSITORY / PAGE).read_text(encoding="utf-8")
    parts = re.split(r"^### `(.+)`$", text.partition("## Inside")[0], flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def cells(text: str) -> set[str]:
    """The names in the first column of the tables in a text."""
    rows = re.findall(r"^\| (`.+?`(?:, `.+?`)*) \|", text, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(.+?)`", row)}


def test_every_object_and_no_other(shop: Connection) -> None:
    inside = (REPOSITORY / PAGE).read_text(encoding="utf-8").partition("## Inside")[2]
    made = {name for (name,) in shop.execute(f"{RELATIONS} UNION ALL {FUNCTIONS}")} - {"articles"}
    assert made == sections().keys() | cells(inside)


def test_every_column_and_no_other(shop: Connection) -> None:
    have_columns = {name: text for name, text in sections().items() if cells(text)}
    for name, text in have_columns.items():
        described = shop.execute(f"SELECT * FROM {name.replace('most integer', '1')} LIMIT 0").description
        assert cells(text) == {column.name for column in described or ()}, name
    assert {name for name in sections() if "(" not in name} < have_columns.keys()


def test_the_examples_run(shop: Connection) -> None:
    examples = [block.text for block in blocks(PAGE) if block.language == "sql"]
    for example in examples:
        shop.execute(example)
    assert len(examples) > 3
