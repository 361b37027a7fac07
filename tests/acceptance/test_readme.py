"""The blocks of README and the other documents, run as their reader would run them: see `reader`."""

import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from freshvec import config
from freshvec.cli.app import app
from tests.acceptance.reader import Block, Reader, blocks, check_make, commands
from tests.support import MODEL, REPOSITORY, Connection

START = "docs/start.md"
SITE = sorted(str(p.relative_to(REPOSITORY)) for p in (REPOSITORY / "docs").rglob("*.md"))
# The others have tests of their own: test_recipes.py, tests/integration/test_sql_reference.py.
OTHERS = [
    "CONTRIBUTING.md",
    "ARCHITECTURE.md",
    *(p for p in SITE if p not in (START, "docs/sql.md") and "/recipes/" not in p),
]
ARTICLES = (
    ("How to return an order", "Print the label, put it on the parcel, and hand it in."),
    ("Baking bread", "Flour, water, salt, and a night of patience."),
    ("Tuning a guitar", "Begin with the lowest string."),
)
NEAREST = ARTICLES[0][0]


@pytest.fixture
def reader(url: str, application: Connection, models_dir: Path, tmp_path: Path) -> Iterator[Reader]:
    application.execute(
        "CREATE TABLE articles (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text, body text,"
        " published boolean NOT NULL DEFAULT true)"
    )
    with application.cursor() as cursor:
        cursor.executemany("INSERT INTO articles (title, body) VALUES (%s, %s)", ARTICLES)
        cursor.execute("INSERT INTO articles (title, published) VALUES ('A draft', false)")
    typing = Reader(tmp_path, url, models_dir, application, len(ARTICLES))
    yield typing
    typing.close()


@pytest.mark.parametrize("document", ["README.md", START])
def test_from_top_to_bottom(document: str, reader: Reader) -> None:
    shown: dict[str, str] = {}
    rows: list[tuple[Any, ...]] = []
    play: dict[str, Callable[[Block], object]] = {
        "console": lambda block: [shown.update({line: reader.type(line)}) for line in commands(block, "$")],
        "toml": lambda block: (reader.folder / "freshvec.toml").write_text(block.text),
        "python": lambda block: exec(reader.here(block.text), reader.names),
        "sql": lambda block: rows.extend(reader.query(block.text)),
        "text": lambda block: None,  # a picture
    }
    for block in blocks(document):
        play[block.language](block)
    assert "public.articles (title, body)" in shown["freshvec init"]
    assert "to encode  3 rows" in shown["freshvec plan"]
    assert "fresh" in shown["freshvec status"]
    assert "every one fresh" in shown["freshvec verify"]
    assert NEAREST in next(out for line, out in shown.items() if line.startswith("freshvec search"))
    assert rows[0] == (1, NEAREST)
    assert len(rows) == len(ARTICLES)
    if document == START:
        counted = f'freshvec_rows{{sync="articles"}} {len(ARTICLES)}'
        assert counted in next(out for line, out in shown.items() if line.endswith("/metrics"))
        assert "ready" in next(out for line, out in shown.items() if line.endswith("/readyz"))
    assert reader.application.execute("SELECT to_regclass('articles_embedding')").fetchone() == (None,)


def check_settings(text: str) -> None:
    """It is a part of a `freshvec.toml`, or of a sync in one."""
    written = tomllib.loads(text)
    if written.keys() <= config.Sync.model_fields.keys():
        written = {"sync": [{"name": "a", "table": "a", "columns": ["b"], "model": MODEL, **written}]}
    config.Settings.model_validate(written)


@pytest.mark.parametrize("document", OTHERS)
def test_what_the_other_documents_type(document: str, reader: Reader) -> None:
    (reader.folder / "freshvec.toml").write_text(
        f'[[sync]]\nname = "articles"\ntable = "articles"\ncolumns = ["title", "body"]\nmodel = "{MODEL}"\n'
        'where = "published"\n'
    )
    for block in blocks(document):
        if document == "docs/operations.md" and block.language == "sql":
            continue  # run by tests/integration/test_roles.py, which reads it from the document
        if block.language == "toml":
            check_settings(block.text)
            continue
        assert block.language == "console", "write a way to run this kind of block"
        for line in commands(block, "$"):
            if "--adopt" in line or line.startswith("freshvec swap"):
                continue  # run by test_adoption_cli.py, test_swap_cli.py: they take vectors and two models
            if line.startswith("freshvec "):
                reader.type(line)
            else:
                assert line.startswith("make "), "write a way to run this line"
                check_make(line, REPOSITORY)


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", *SITE])
def test_commands_named_in_prose_exist(document: str) -> None:
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for line in re.findall(r"`freshvec ([a-z][^`]*)`", text):
        name, *words = line.split()
        options = {option for parameter in known[name].params for option in parameter.opts} | {"--help"}
        assert {word for word in words if word.startswith("-")} <= options, line


def test_the_model_of_the_readme_is_the_one_that_is_exported_here() -> None:
    assert f"freshvec export {MODEL}" in (REPOSITORY / "README.md").read_text(encoding="utf-8")
