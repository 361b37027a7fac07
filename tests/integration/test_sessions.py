"""Sessions of ours are pinned, whatever the role's settings; what else the user wants of them is kept."""

import os

import pytest
from pydantic import SecretStr

from freshvec.db import connect
from tests.support import Connection

TIMEOUTS = ("statement_timeout", "transaction_timeout", "idle_session_timeout")


@pytest.mark.parametrize("how", ["url", "environment"])
def test_options_of_the_users_are_kept_where_a_timeout_would_cut_a_session_off(
    url: str, application: Connection, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    role = f"hurried_{os.getpid()}"
    application.execute(f"CREATE ROLE {role} LOGIN")
    try:
        for timeout in TIMEOUTS:
            application.execute(f"ALTER ROLE {role} SET {timeout} = '1ms'")
        given = url.replace("postgres:@", f"{role}:@")
        if how == "url":
            given += "&options=-c%20app.tenant%3Dkept"
        else:
            monkeypatch.setenv("PGOPTIONS", "-c app.tenant=kept")
        asked = ", ".join(f"current_setting('{name}')" for name in ("app.tenant", *TIMEOUTS))
        for _ in range(20):  # not every session is too slow for a millisecond
            with connect(SecretStr(given), "test") as connection:
                found = connection.execute(f"SELECT {asked}").fetchone()
            assert found == ("kept", "0", "0", "0")
    finally:
        application.execute(f"DROP ROLE {role}")


def test_a_session_says_what_it_is_for(url: str) -> None:
    with connect(SecretStr(url), "test") as connection:
        named = "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        assert connection.execute(named).fetchone() == ("freshvec test",)
        assert connection.info.encoding == "utf-8"
