"""A worker that lives for months keeps no transaction id from being frozen."""

import pytest

from tests.support import Connection, NullEncoder, running, settings_for, sync_of, until, wait_fresh

FROZEN = "SELECT age(datfrozenxid) < age(%s::xid) FROM pg_database WHERE datname = current_database()"


@pytest.mark.parametrize("docs_url", ["url", "url16"])
def test_the_frozen_id_follows_a_vacuum_while_a_worker_lives(
    request: pytest.FixtureRequest, docs_url: str
) -> None:
    url = request.getfixturevalue(docs_url)
    with Connection.connect(url, autocommit=True) as application:
        application.execute("CREATE TABLE docs (id bigint PRIMARY KEY, body text)")
        application.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 100) g")
        with running(settings_for(url, sync_of("docs")), NullEncoder()) as worker:
            wait_fresh(worker)
            application.execute("UPDATE docs SET body = body || ' edited'")
            wait_fresh(worker)
            (since,) = application.execute("SELECT pg_current_xact_id()::xid::text").fetchone() or ("",)

            def is_frozen() -> bool:
                """Once no transaction that was open at the vacuum is left."""
                application.execute("VACUUM (FREEZE)")
                return application.execute(FROZEN, (since,)).fetchone() == (True,)

            for number in range(10):
                application.execute("UPDATE docs SET body = %s WHERE id = 1", (f"text {number}",))
            wait_fresh(worker)
            first = worker.keepers[0].pipeline
            until("everything older is frozen", is_frozen, 30)
            assert worker.keepers[0].pipeline is first, "the sessions are the same"
