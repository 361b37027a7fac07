"""How many workers Postgres bears: by the limits of the server, of the database, and of the role."""

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from freshvec.errors import DatabaseError, FreshvecError
from freshvec.fleet.room import bearable, check
from tests.support import Connection


def limit(application: Connection, sessions: int) -> None:
    name = sql.Identifier(application.info.dbname)
    application.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(name, sql.Literal(sessions)))


def test_the_narrowest_limit_counts(url: str, application: Connection) -> None:
    asked = SecretStr(url)
    most, _ = bearable(asked)
    limit(application, 30)
    assert 5 <= most <= 10, "of the server's 100 sessions"
    assert bearable(asked) == (3, 100), "30, less the application's, less 2: 27, and nine each"
    limit(application, 12)
    assert bearable(asked) == (1, 100)
    limit(application, 8)
    assert bearable(asked) == (0, 100)
    with pytest.raises(FreshvecError, match=r"they need 20 sessions, .* Close idle sessions, or raise"):
        check(asked, 2)
    limit(application, 30)
    check(asked, 3)
    with pytest.raises(FreshvecError, match=r"cannot start 4 workers: .* Start 3 of them, or raise"):
        check(asked, 4)


def test_a_role_s_limit_is_its_own(url: str, application: Connection) -> None:
    application.execute("CREATE ROLE few LOGIN CONNECTION LIMIT 12")
    try:
        asked = SecretStr(url.replace("postgres:@", "few:@"))
        assert bearable(asked) == (1, 100)
        with psycopg.connect(asked.get_secret_value()), psycopg.connect(asked.get_secret_value()):
            assert bearable(asked) == (0, 100)
    finally:
        application.execute("DROP ROLE few")


def test_a_server_that_is_away_is_waited_for_by_the_workers() -> None:
    check(SecretStr(make_conninfo(host="/nowhere", user="postgres")), 99)
    with pytest.raises(DatabaseError):
        bearable(SecretStr(make_conninfo(host="/nowhere", user="postgres")))
