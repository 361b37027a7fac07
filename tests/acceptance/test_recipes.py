"""The recipes of docs/recipes, followed as they stand: files written, commands typed, output compared."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg.conninfo import conninfo_to_dict

from tests.acceptance.reader import Reader, blocks, commands, printed
from tests.support import REPOSITORY, Connection, until

SHARED = "docs/recipes/index.md"
RECIPES = sorted(path.stem for path in (REPOSITORY / "docs/recipes").glob("*.md") if path.stem != "index")
ROWS = 6
# Six rows are read sooner than an index. With these a plan has the index if it can have it at all.
INSIST = "-c enable_seqscan=off -c enable_sort=off"
SETTINGS = """
SECRET_KEY = "of a test"
INSTALLED_APPS = ["shop"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {{"default": {{"ENGINE": "django.db.backends.postgresql", **{connection}}}}}
"""
MANAGE = """
import os
import sys
from django.core.management import execute_from_command_line
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
execute_from_command_line(sys.argv)
"""


@pytest.fixture
def reader(url: str, application: Connection, models_dir: Path, tmp_path: Path) -> Iterator[Reader]:
    typing = Reader(tmp_path, url, models_dir, application, ROWS)
    yield typing
    typing.close()


def follow(document: str, reader: Reader) -> None:
    """Do what a page says, in its order."""
    for block in blocks(document):
        if block.title:
            file = reader.folder / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(reader.here(block.text))
        elif block.language == "sql":
            reader.application.execute(block.text)
        else:
            assert block.language == "console", "write a way to run this kind of block"
            expected = printed(block)
            for line in commands(block, "$"):
                shown = "\n".join(row.rstrip() for row in reader.type(line).splitlines())
                assert shown.strip() == expected.get(line, "").strip(), line


def searches_by_index(application: Connection) -> int:
    query = (
        "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'articles_embedding_embedding_idx'"
    )
    (scans,) = application.execute(query).fetchone() or (0,)
    return int(scans)


def begin_django(folder: Path, url: str) -> None:
    """What a project has before it has a search."""
    given = conninfo_to_dict(url)
    connection = {"NAME": given["dbname"], "HOST": given["host"], "USER": given["user"]}
    (folder / "settings.py").write_text(SETTINGS.format(connection=connection))
    (folder / "manage.py").write_text(MANAGE)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_does_what_it_says(recipe: str, reader: Reader) -> None:
    if recipe == "sql" and not all(map(shutil.which, ("psql", "curl", "jq"))):
        pytest.skip("it needs psql, curl and jq: `apt-get install postgresql-client curl jq`")
    if recipe == "django":
        begin_django(reader.folder, reader.url)
    follow(SHARED, reader)
    reader.env["PGOPTIONS"] = INSIST
    follow(f"docs/recipes/{recipe}.md", reader)
    until("the index has served it", lambda: searches_by_index(reader.application) > 0)


def test_alembic_leaves_alone_what_is_freshvecs(reader: Reader) -> None:
    follow(SHARED, reader)
    files = {block.title: reader.here(block.text) for block in blocks("docs/recipes/sqlalchemy.md")}
    names: dict[str, Any] = {"__name__": "models"}
    exec(files["models.py"], names)
    exec(files["alembic_filter.py"], names)

    def tables(**options: Any) -> list[tuple[str, str]]:
        """The tables that Alembic would make and drop."""
        with names["engine"].connect() as connection:
            context = MigrationContext.configure(connection, opts=options)
            found = compare_metadata(context, names["Base"].metadata)
        return sorted(
            (change[0], change[1].name) for change in found if change[0] in ("add_table", "remove_table")
        )

    assert tables() == [("add_table", "articles_embedded"), ("remove_table", "articles_embedding")]
    assert tables(include_object=names["include_object"]) == []
