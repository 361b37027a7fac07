"""A key whose index orders or compares otherwise than its column: pages are read by the column's order."""

from collections.abc import Iterator

import psycopg
import pytest

from freshvec.db import connect
from freshvec.errors import SchemaError
from freshvec.schema.plan import plan
from tests.integration.locking import NULL
from tests.support import Connection, NullEncoder, backfill, count, settings_for, sync_of

OF_15 = """CREATE EXTENSION citext;
CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"""
# How the key is declared, and the columns of its unique index.
OTHERWISE = {
    "18 pattern": ("text NOT NULL", "id text_pattern_ops"),
    "18 collation": ("text NOT NULL", 'id COLLATE "C"'),
    "18 domain": ("name_of_doc NOT NULL", "id text_pattern_ops"),
    "18 second column": ("text NOT NULL", "body, id text_pattern_ops"),
    "15 icu pattern": ('text COLLATE "en-x-icu" NOT NULL', "id text_pattern_ops"),
    "15 nondeterministic": ("text COLLATE nocase NOT NULL", 'id COLLATE "C"'),
    "15 citext as text": ("citext NOT NULL", "id text_ops"),
    "15 domain of citext": ("any_case NOT NULL", "id text_ops"),
}
ALIKE = {
    "18 varchar": ("varchar(9) NOT NULL", "id varchar_ops"),
    "18 domain": ("name_of_doc NOT NULL", "id"),
    "18 descending": ("text NOT NULL", "id DESC"),
    "18 included": ("text NOT NULL", "id) INCLUDE (body"),
    "18 collated": ('text COLLATE "C" NOT NULL', 'id COLLATE "C"'),
    "18 array": ("text[] NOT NULL", "id"),
    "18 enum": ("letter NOT NULL", "id"),
    "18 char": ("char(3) NOT NULL", "id"),
    "18 range": ("int4range NOT NULL", "id"),
    "18 composite": ("pair NOT NULL", "id"),
    "18 cidr": ("cidr NOT NULL", "id"),
    "18 cidr_ops": ("cidr NOT NULL", "id cidr_ops"),
    "15 citext": ("citext NOT NULL", "id"),
    "15 domain of citext": ("any_case NOT NULL", "id"),
    "15 nondeterministic": ("text COLLATE nocase NOT NULL", "id"),
}
TYPES = """CREATE DOMAIN name_of_doc AS text; CREATE TYPE letter AS ENUM ('a', 'B');
CREATE TYPE pair AS (a int, b text)"""


def columns_of(cases: dict[str, tuple[str, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("indexed", cases.items(), indirect=True, ids=cases.keys())


@pytest.fixture
def indexed(request: pytest.FixtureRequest) -> Iterator[tuple[str, Connection]]:
    """A table of such a key and index."""
    case, (declared, index) = request.param
    url: str = request.getfixturevalue("url15" if case.startswith("15") else "url")
    with psycopg.connect(url, autocommit=True) as application:
        if case.startswith("15"):
            application.execute(OF_15)
            application.execute("CREATE DOMAIN any_case AS citext")
        application.execute(TYPES)
        application.execute(f"CREATE TABLE docs (id {declared}, body text NOT NULL)".encode())
        application.execute(f"CREATE UNIQUE INDEX other_order ON docs ({index})".encode())
        yield url, application


@columns_of(OTHERWISE)
def test_an_index_of_another_order_is_no_key(indexed: tuple[str, Connection]) -> None:
    url, application = indexed
    settings = settings_for(url, sync_of("docs", target={"type": "real[]"}))
    with connect(settings.database.url, "test") as connection:
        with pytest.raises(SchemaError, match=r"index public\.other_order orders or compares keys otherwise"):
            plan(connection, settings.sync[0], NULL)
        application.execute("CREATE UNIQUE INDEX ON docs (id)")
        assert plan(connection, settings.sync[0], NULL).bound.key_columns == ("id",)
    application.execute("INSERT INTO docs VALUES ('a', '1'), ('B', '2'), ('c', '3')")
    backfill(settings_for(url, settings.sync[0].model_dump(exclude_unset=True), page_rows=1), NullEncoder())
    assert count(application, "docs_embedding") == 3


@columns_of(ALIKE)
def test_an_index_of_the_same_order_is_one(indexed: tuple[str, Connection]) -> None:
    url, _ = indexed
    settings = settings_for(url, sync_of("docs", target={"type": "real[]"}))
    with connect(settings.database.url, "test") as connection:
        assert plan(connection, settings.sync[0], NULL).bound.key_columns == ("id",)
