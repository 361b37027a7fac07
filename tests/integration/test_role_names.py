"""Roles whose names need quotes, as addresses of mail do, by which some clouds let people in."""

from collections.abc import Iterator
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from freshvec.config import Settings
from freshvec.db import connect
from freshvec.errors import SchemaError
from freshvec.health.status import read
from freshvec.records import Model
from freshvec.schema import migrations
from freshvec.schema.apply import apply
from tests.support import (
    MODEL,
    Connection,
    NullEncoder,
    count,
    running,
    settings_for,
    sync_of,
    wait_fresh,
)

NULL = Model(MODEL, NullEncoder.dimension, 256, NullEncoder.fingerprint)
OWNER, WORKER, READER = "Shop.Owner@example.com", 'the "worker"-1', "Lesér"
Roles = tuple[Connection, dict[str, Settings]]


@pytest.fixture
def roles(either_url: str, app: Connection) -> Iterator[Roles]:
    """A superuser's connection, and settings by which each role connects. The owner's table has rows."""
    row = app.execute("SELECT quote_ident(current_database())").fetchone()
    assert row
    names = {"owner": OWNER, "worker": WORKER, "reader": READER}
    quoted = {key: sql.Identifier(name).as_string() for key, name in names.items()}
    for name in quoted.values():
        app.execute(f"CREATE ROLE {name} LOGIN; GRANT ALL ON SCHEMA public TO {name}".encode())
    app.execute(f"GRANT ALL ON DATABASE {row[0]} TO {quoted['owner']}".encode())
    app.execute("CREATE TABLE docs (id bigint PRIMARY KEY, body text)")
    app.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 3) g")
    app.execute(f"ALTER TABLE docs OWNER TO {quoted['owner']}".encode())
    app.execute(f"GRANT SELECT ON docs TO {quoted['reader']}".encode())
    urls = {key: either_url.replace("postgres:@", f"{quote(name)}:@") for key, name in names.items()}
    yield app, {key: settings_for(url, sync_of("docs")) for key, url in urls.items()}
    for name in quoted.values():
        app.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}".encode())


def test_each_does_what_it_is_for(roles: Roles) -> None:
    app, settings = roles
    with connect(settings["owner"].database.url, "test") as connection:
        migrations.migrate(connection)
        apply(connection, settings["owner"].sync[0], NULL, WORKER)
        assert read(connection)[0]["rows_total"] == 3
    with running(settings["worker"], NullEncoder()) as worker:
        wait_fresh(worker)
        app.execute("UPDATE docs SET body = 'edited' WHERE id = 1")
        wait_fresh(worker)
    with psycopg.connect(settings["reader"].database.url.get_secret_value()) as reader:
        assert count(reader, "docs_embedded") == 3


def test_what_is_somebody_elses_is_named_with_its_owner(roles: Roles) -> None:
    app, settings = roles
    with connect(settings["owner"].database.url, "test") as connection:
        migrations.migrate(connection)
        apply(connection, settings["owner"].sync[0], NULL)
        name = sql.Identifier(READER).as_string()
        app.execute(f"ALTER TABLE docs_embedding OWNER TO {name}".encode())
        with pytest.raises(SchemaError, match='docs_embedding: it is "Lesér"\'s, ') as raised:
            apply(connection, settings["owner"].sync[0], NULL)
        assert f'OWNER TO "{OWNER}"; or drop it' in raised.value.remedy
