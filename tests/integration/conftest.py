"""What the tests of exports share; torch is imported only where a tiny model is asked for."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from freshvec.export import gate
from tests.integration.at_rest import Kept
from tests.integration.swapping import Swapped
from tests.support import Connection, sync_of


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny BERT. Tests that change it work on a copy."""
    from tests.tiny_models import bert

    folder: Path = tmp_path_factory.mktemp("tiny-bert")
    bert(folder)
    return folder


@pytest.fixture(scope="session")
def gate_texts() -> list[str]:
    """Texts for the gate of an export: tiny models need no more than a few dozen."""
    return gate.texts(48)


@pytest.fixture(params=["18", "16"])
def either_url(request: pytest.FixtureRequest) -> str:
    """A fresh database on each version of Postgres."""
    url: str = request.getfixturevalue("url" if request.param == "18" else "url16")
    return url


@pytest.fixture
def app(either_url: str) -> Iterator[Connection]:
    """The application's connection to it."""
    with psycopg.connect(either_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def kept(either_url: str, app: Connection) -> Iterator[Kept]:
    """`docs (id, body, views)` with 50 rows, to be kept."""
    app.execute("CREATE TABLE docs (id int PRIMARY KEY, body text, views int DEFAULT 0)")
    app.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 50) g")
    made = Kept(either_url, app)
    yield made
    made.close()


@pytest.fixture
def column(kept: Kept) -> Kept:
    """The same, its vectors in a column of the table itself."""
    kept.sync = sync_of("docs", target={"column": "embedding"})
    kept.vector = "d.embedding"
    return kept


@pytest.fixture
def many(kept: Kept) -> Kept:
    """The same with 500 rows."""
    kept.app.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(51, 500) g")
    return kept


@pytest.fixture
def swapped(either_url: str, app: Connection) -> Swapped:
    """`docs (id, body, title)` with 60 rows, to be kept, and the swap of its sync."""
    app.execute("CREATE TABLE docs (id int PRIMARY KEY, body text, title text DEFAULT 'title')")
    app.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 60) g")
    return Swapped(either_url, app)
