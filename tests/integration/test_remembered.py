"""What a session remembers of table and queue is forgotten once either is altered: no statement fails, and
whatever cannot be noted is walked."""

from collections.abc import Iterator

import psycopg
import pytest

from tests.support import Connection, NullEncoder, backfill, count, settings_for, sync_of

TABLES = {
    "ordinary": "CREATE TABLE docs (id int PRIMARY KEY, body text, views int)",
    "partitioned": """CREATE TABLE docs (id int PRIMARY KEY, body text, views int) PARTITION BY RANGE (id);
        CREATE TABLE docs_low PARTITION OF docs FOR VALUES FROM (0) TO (100);
        CREATE TABLE docs_rest PARTITION OF docs DEFAULT""",
    "inherited": """CREATE TABLE docs (id int PRIMARY KEY, body text, views int);
        CREATE TABLE docs_low (PRIMARY KEY (id)) INHERITS (docs)""",
}
# What is done to table or queue, and what undoes it where that can be done by hand.
ALTERED = {
    "column dropped": ("ALTER TABLE docs DROP COLUMN body", "ALTER TABLE docs ADD COLUMN body text"),
    "column renamed": ("ALTER TABLE docs RENAME body TO x", "ALTER TABLE docs RENAME x TO body"),
    "key renamed": ("ALTER TABLE docs RENAME id TO x", "ALTER TABLE docs RENAME x TO id"),
    "schema renamed": ("ALTER SCHEMA freshvec RENAME TO hidden", "ALTER SCHEMA hidden RENAME TO freshvec"),
    "queue renamed": (
        "ALTER TABLE freshvec.queue_docs RENAME TO away",
        "ALTER TABLE freshvec.away RENAME TO queue_docs",
    ),
    "queue checks": (
        "ALTER TABLE freshvec.queue_docs ADD CONSTRAINT never CHECK (false) NOT VALID",
        "ALTER TABLE freshvec.queue_docs DROP CONSTRAINT never",
    ),
    "queue retyped": (
        "ALTER TABLE freshvec.queue_docs ALTER k1 TYPE smallint",
        "ALTER TABLE freshvec.queue_docs ALTER k1 TYPE int",
    ),
    "queue narrowed": ("ALTER TABLE freshvec.queue_docs DROP k1", None),
    "queue widened": ("ALTER TABLE freshvec.queue_docs ADD more int DEFAULT 0", None),
    "queue with a rule": (
        "CREATE RULE never AS ON INSERT TO freshvec.queue_docs DO ALSO SELECT 1 / 0",
        "DROP RULE never ON freshvec.queue_docs",
    ),
    "queue with a trigger": (
        """CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM 1 / 0; END';
        CREATE TRIGGER never BEFORE INSERT ON freshvec.queue_docs EXECUTE FUNCTION never()""",
        "DROP TRIGGER never ON freshvec.queue_docs",
    ),
    "queue with policies for all": (
        "ALTER TABLE freshvec.queue_docs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        "ALTER TABLE freshvec.queue_docs NO FORCE ROW LEVEL SECURITY",  # its owner needs no policy
    ),
}


@pytest.fixture(params=TABLES)
def session(request: pytest.FixtureRequest, either_url: str, app: Connection) -> Iterator[Connection]:
    """A session of the application that has changed rows which were noted."""
    app.execute(TABLES[request.param])
    backfill(settings_for(either_url, sync_of("docs", target={"type": "real[]"})), NullEncoder())
    with psycopg.connect(either_url, autocommit=True) as session:
        assert noted(session, 1) == 3
        yield session


def write(session: Connection, first: int) -> None:
    """Statements of each kind, of one row and of several, that name no column."""
    session.execute("INSERT INTO docs VALUES (%s)", (first,))
    session.execute("INSERT INTO docs SELECT generate_series(%s::int, %s)", (first + 1, first + 3))
    session.execute("UPDATE docs AS x SET views = y.views FROM docs AS y")
    session.execute("DELETE FROM docs")


def noted(session: Connection, row: int) -> int:
    """How many entries three statements make which change that row."""
    before = count(session, "freshvec.queue_docs")
    session.execute("INSERT INTO docs (id, body) VALUES (%s, 'a')", (row,))
    session.execute("UPDATE docs SET body = 'b'")
    session.execute("DELETE FROM docs")
    return count(session, "freshvec.queue_docs") - before


@pytest.fixture
def warnings(session: Connection) -> list[str]:
    """What the session is warned of."""
    heard: list[str] = []
    session.add_notice_handler(lambda notice: heard.append(str(notice.message_primary)))
    return heard


@pytest.mark.parametrize(("damage", "repair"), ALTERED.values(), ids=ALTERED.keys())
def test_what_others_alter_is_seen(
    app: Connection, session: Connection, warnings: list[str], damage: str, repair: str | None
) -> None:
    app.execute(damage.encode())
    write(session, 20)
    assert warnings
    assert all(message.startswith("freshvec: sync docs c") for message in warnings)
    if "SCHEMA" not in damage:
        assert count(app, "freshvec.rescan WHERE reason = 'the table has changed'") == 1
    warnings.clear()
    if repair:
        app.execute(repair.encode())
        assert noted(session, 30) == 3
        assert not warnings


def test_a_transaction_warns_once(app: Connection, session: Connection, warnings: list[str]) -> None:
    """However many rows and statements it has, and once more where its request was taken back."""
    app.execute("ALTER TABLE docs DROP COLUMN body")
    with session.transaction():
        with session.transaction(force_rollback=True):
            write(session, 60)
        write(session, 70)
    assert len(warnings) == 2
    assert count(app, "freshvec.rescan") == 1


def test_what_the_session_itself_alters_is_seen_and_taken_back(
    session: Connection, warnings: list[str]
) -> None:
    session.execute("BEGIN; ALTER TABLE docs DROP COLUMN body")
    write(session, 40)
    assert warnings
    warnings.clear()
    session.execute("ROLLBACK")
    assert noted(session, 50) == 3
    assert not warnings


@pytest.mark.parametrize("session", ["ordinary"], indirect=True)
def test_a_key_of_another_type_does_not_overflow(app: Connection, session: Connection) -> None:
    app.execute("ALTER TABLE docs ALTER id TYPE bigint")
    session.execute("INSERT INTO docs VALUES (%s)", (2**40,))
    assert count(app, "freshvec.rescan") == 1


@pytest.mark.parametrize("role", ["origin", "replica"])
def test_a_watched_column_of_another_type(app: Connection, session: Connection, role: str) -> None:
    """A session that has compared its values goes on to, whatever type they have by then."""
    session.execute(f"SET session_replication_role = {role}".encode())
    member = "docs_low" if count(app, "pg_class WHERE relname = 'docs_low'") else "docs"
    session.execute(f"INSERT INTO docs VALUES (1, 'a', 0); INSERT INTO {member} VALUES (2, 'b', 0)".encode())
    for kind in ("varchar(60)", "json USING to_json(body)", "text USING body::text"):
        session.execute("UPDATE docs SET views = views + 1")
        app.execute(f"ALTER TABLE docs ALTER body TYPE {kind}".encode())
        before = count(session, "freshvec.queue_docs")
        session.execute("UPDATE docs SET views = views + 1")
        assert count(session, "freshvec.queue_docs") == before
        session.execute("UPDATE docs SET body = NULL WHERE id = 1")
        assert count(session, "freshvec.queue_docs") == before + 1
        session.execute("UPDATE docs SET body = '1' WHERE id = 1")
    assert count(session, "freshvec.rescan") == 0


@pytest.mark.parametrize("session", ["partitioned", "inherited"], indirect=True)
def test_a_member_that_was_let_go_may_be_altered(app: Connection, session: Connection) -> None:
    session.execute("INSERT INTO docs_low VALUES (1, 'a')")
    if count(app, "pg_class WHERE relname = 'docs_low' AND relispartition"):
        app.execute("ALTER TABLE docs DETACH PARTITION docs_low")
    else:
        app.execute("ALTER TABLE docs_low NO INHERIT docs")
    session.execute("UPDATE docs_low SET body = 'b'")
    app.execute("ALTER TABLE docs_low ALTER body TYPE varchar(60)")
    session.execute("UPDATE docs_low SET views = 0")
    app.execute("ALTER TABLE docs_low DROP COLUMN body")
    session.execute("INSERT INTO docs_low VALUES (2)")
    session.execute("UPDATE docs_low SET views = 1")
    session.execute("DELETE FROM docs_low")


@pytest.mark.parametrize(
    "damage", ["column dropped", "column renamed", "key renamed", "queue checks", "queue retyped"]
)
def test_what_an_old_snapshot_does_not_show_is_seen(
    app: Connection, session: Connection, damage: str
) -> None:
    alter, repair = ALTERED[damage]
    assert repair
    with session.transaction():
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        session.execute("SELECT 1")
        app.execute(alter.encode())
        session.execute("INSERT INTO docs VALUES (1)")
    session.execute("INSERT INTO docs VALUES (2)")
    session.execute("DELETE FROM docs")
    app.execute(repair.encode())
    assert noted(session, 3) == 3


@pytest.mark.parametrize("session", ["ordinary"], indirect=True)
def test_what_an_old_snapshot_shows_is_not_remembered(app: Connection, session: Connection) -> None:
    with session.transaction():
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        session.execute("SELECT 1")
        app.execute("ALTER TABLE docs ALTER id TYPE bigint")
        session.execute("INSERT INTO docs VALUES (1)")
    session.execute("INSERT INTO docs VALUES (%s)", (2**40,))
    assert count(app, "freshvec.rescan") == 1


def test_a_table_that_another_took_the_place_of_may_be_altered(app: Connection, session: Connection) -> None:
    is_partitioned = count(app, "pg_class WHERE relname = 'docs' AND relkind = 'p'")
    app.execute("ALTER TABLE docs RENAME TO docs_old")
    by = "PARTITION BY RANGE (id)" if is_partitioned else ""
    app.execute(f"CREATE TABLE docs (id int PRIMARY KEY, body text, views int) {by}".encode())
    members = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'docs_old'::regclass"
    tables = ["docs_old", *(name for (name,) in app.execute(members))]
    for change in ("ADD COLUMN more int", "DROP COLUMN body"):
        app.execute(f"ALTER TABLE docs_old {change}".encode())
        for table in tables:
            row = 500 if table == "docs_rest" else 50
            session.execute(f"INSERT INTO {table} VALUES ({row})".encode())
            session.execute(f"UPDATE {table} SET views = 1".encode())
            session.execute(f"DELETE FROM {table}".encode())


@pytest.mark.parametrize("session", ["ordinary", "partitioned"], indirect=True)
def test_rights_that_who_applied_has_lost(app: Connection, session: Connection) -> None:
    """On the schema of ours nothing can be noted; on that of the table it can, without its name."""
    applier = app.execute("SELECT current_database() || '_applier'").fetchone()
    assert applier
    name = applier[0]
    app.execute(f"CREATE ROLE {name}; GRANT USAGE ON SCHEMA freshvec TO {name}".encode())
    for kind in ("capture", "capture_row", "was_intact", "is_intact"):
        app.execute(f"ALTER FUNCTION freshvec.{kind}_docs OWNER TO {name}".encode())
    app.execute(f"ALTER TABLE freshvec.queue_docs OWNER TO {name}".encode())
    try:
        app.execute(f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA freshvec TO {name}".encode())
        assert noted(session, 3) == 3
        app.execute("REVOKE USAGE ON SCHEMA public FROM PUBLIC")
        assert noted(session, 4) == 3
        app.execute(f"REVOKE USAGE ON SCHEMA freshvec FROM {name}".encode())
        assert noted(session, 5) == 0
        app.execute(f"REVOKE ALL ON FUNCTION freshvec.ring, freshvec.ask_for_walk FROM {name}".encode())
        app.execute(f"GRANT USAGE ON SCHEMA freshvec TO {name}".encode())
        assert noted(session, 6) == 3
    finally:
        app.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}".encode())
