"""The application drops a type or a role, or tightens a domain, that what is ours depends on: what
docs/troubleshooting.md says helps."""

import psycopg
import pytest

from freshvec.db import connect
from freshvec.schema.apply import remove
from tests.integration.at_rest import Kept
from tests.integration.locking import apply_to
from tests.support import NullEncoder, backfill, count, wait_fresh


def test_a_keys_type_can_be_dropped_once_the_sync_is_removed(kept: Kept) -> None:
    kept.app.execute("CREATE TYPE mood AS ENUM ('good', 'bad'); DROP TABLE docs")
    kept.app.execute("CREATE TABLE docs (id mood PRIMARY KEY, body text)")
    apply_to(kept)
    kept.app.execute("DROP TABLE docs")
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        kept.app.execute("DROP TYPE mood")
    with connect(kept.settings.database.url, "test") as connection:
        assert remove(connection, "docs")
    kept.app.execute("DROP TYPE mood")


def test_a_keys_domain_can_be_tightened_once_all_is_fresh(kept: Kept) -> None:
    kept.app.execute("CREATE DOMAIN code AS text; DROP TABLE docs")
    kept.app.execute("CREATE TABLE docs (id code PRIMARY KEY, body text)")
    kept.app.execute("INSERT INTO docs VALUES ('good', 'one'), ('bad', 'two')")
    backfill(kept.settings, NullEncoder())
    kept.app.execute("DELETE FROM docs WHERE id = 'bad'")
    tighten = "ALTER DOMAIN code ADD CHECK (VALUE <> 'bad')"
    with pytest.raises(psycopg.errors.CheckViolation):
        kept.app.execute(tighten)
    with kept.running() as worker:
        wait_fresh(worker)
        kept.app.execute(tighten)


@pytest.mark.parametrize("helps", ["apply", "DROP OWNED BY analyst"])
def test_a_role_can_be_dropped_once_apply_has_followed(kept: Kept, helps: str) -> None:
    kept.app.execute("CREATE ROLE analyst; GRANT SELECT ON docs TO analyst")
    apply_to(kept)
    kept.app.execute("REVOKE ALL ON docs FROM analyst")
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        kept.app.execute("DROP ROLE analyst")
    if helps == "apply":
        apply_to(kept)
    else:
        kept.app.execute(helps.encode())
    kept.app.execute("DROP ROLE analyst")
    assert count(kept.app, "pg_roles WHERE rolname = 'analyst'") == 0
