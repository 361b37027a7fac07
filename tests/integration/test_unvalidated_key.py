"""Postgres 18: a column that is NOT NULL for new rows alone may have NULLs, and is no key yet."""

import pytest

from freshvec.db import connect
from freshvec.errors import SchemaError
from freshvec.schema.plan import plan
from tests.integration.locking import NULL
from tests.support import Connection, settings_for, sync_of


def test_a_column_that_may_have_nulls_is_no_key(url: str, application: Connection) -> None:
    application.execute("CREATE TABLE docs (id int UNIQUE, body text)")
    application.execute("INSERT INTO docs VALUES (NULL, 'one')")
    application.execute("ALTER TABLE docs ADD CONSTRAINT filled NOT NULL id NOT VALID")
    settings = settings_for(url, sync_of("docs"))
    with connect(settings.database.url, "test") as connection:
        with pytest.raises(SchemaError, match="no unique index on NOT NULL columns"):
            plan(connection, settings.sync[0], NULL)
        application.execute("DELETE FROM docs; ALTER TABLE docs VALIDATE CONSTRAINT filled")
        assert plan(connection, settings.sync[0], NULL).bound.key_columns == ("id",)
