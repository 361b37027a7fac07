"""The roles of docs/operations.md, made by its own SQL, and what each of them may and may not do."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from freshvec.config import Settings
from freshvec.db import connect
from freshvec.health.status import failures, read
from freshvec.records import Model
from freshvec.scans.retry import retry
from freshvec.scans.verify import verify
from freshvec.schema import editions, migrations, swap
from freshvec.schema.apply import apply
from freshvec.source.bind import bind
from tests.acceptance.reader import blocks
from tests.support import (
    MODEL,
    Connection,
    NullEncoder,
    count,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
)

ROLES = ("shop_monitor", "shop_search", "freshvec_worker", "shop_owner")
NULL = Model(MODEL, NullEncoder.dimension, 256, NullEncoder.fingerprint)


def settings_of(url: str, role: str, **more: Any) -> Settings:
    settings = settings_for(url, sync_of("articles", where="published"), sweep_seconds=0.5)
    database = {"url": url.replace("postgres:@", f"{role}:@"), "worker_role": "freshvec_worker"}
    return Settings.model_validate({**settings.model_dump(exclude={"database"}), "database": database})


@pytest.fixture(params=["18", "16"])
def shop(request: pytest.FixtureRequest) -> Iterator[tuple[str, Connection]]:
    """The URL of a database with the recipe carried out, and a superuser's connection."""
    url: str = request.getfixturevalue("url" if request.param == "18" else "url16")
    texts = [block.text for block in blocks("docs/operations.md") if block.language == "sql"]
    as_superuser, before_apply, after_apply = texts[:3]
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"REVOKE ALL ON DATABASE {admin.info.dbname} FROM PUBLIC")
        admin.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        admin.execute("CREATE TABLE articles (id int PRIMARY KEY, body text, published bool DEFAULT true)")
        admin.execute("INSERT INTO articles SELECT g, 'text ' || g FROM generate_series(1, 50) g")
        admin.execute(as_superuser.replace("DATABASE shop", f"DATABASE {admin.info.dbname}"))
        admin.execute(f"GRANT CONNECT ON DATABASE {admin.info.dbname} TO {', '.join(ROLES)}")
        owner = settings_of(url, "shop_owner")
        with connect(owner.database.url, "test") as connection:
            connection.execute("SET search_path = public")
            connection.execute(before_apply)
            migrations.migrate(connection)
            apply(connection, owner.sync[0], NULL, "freshvec_worker")
            connection.execute(after_apply)
        yield url, admin
        for role in ROLES:
            admin.execute(f"DROP OWNED BY {role} CASCADE")
            admin.execute(f"DROP ROLE {role}")


def test_the_worker_does_all_its_work(shop: tuple[str, Connection]) -> None:
    url, admin = shop
    settings = settings_of(url, "freshvec_worker")
    encoder = NullEncoder(refuse="bad")
    with running(settings, encoder) as worker:
        wait_fresh(worker)
        assert count(admin, "articles_embedding") == 50
        admin.execute("INSERT INTO articles VALUES (51, 'new'), (52, 'a bad one')")
        admin.execute("UPDATE articles SET body = 'edited' WHERE id = 1")
        admin.execute("DELETE FROM articles WHERE id = 2")
        failed = "articles_embedding WHERE encode_error IS NOT NULL"
        until("the bad one is kept", lambda: count(admin, failed) == 1)
        admin.execute("TRUNCATE articles")
        admin.execute("INSERT INTO articles SELECT g, 'again ' || g FROM generate_series(1, 20) g")
        admin.execute("INSERT INTO articles VALUES (52, 'a bad one')")
        until("it is walked", lambda: count(admin, "articles_embedding") == 21)
    with connect(settings.database.url, "test") as connection:
        assert read(connection)[0]["rows_failed"] == 1
        assert [row["key"] for row in failures(connection)["docs"]] == [{"id": 52}]
        bound = bind(connection, settings.sync[0], NULL)
        assert verify(connection, bound, repair=True).problems == {"failed": 1}
        assert retry(connection, bound) == 1
    with running(settings, NullEncoder()) as worker:
        wait_fresh(worker)
        until("it is tried again", lambda: count(admin, failed) == 0)
    with connect(settings.database.url, "test") as connection:
        assert verify(connection, bind(connection, settings.sync[0], NULL)).is_fresh
        assert read(connection)[0]["last_error"] is None


def test_an_owner_swaps_what_a_worker_of_few_rights_fills(shop: tuple[str, Connection]) -> None:
    url, admin = shop
    owner, limited = settings_of(url, "shop_owner"), settings_of(url, "freshvec_worker")
    with (
        running(limited, NullEncoder()) as worker,
        connect(owner.database.url, "test") as connection,
        psycopg.connect(url.replace("postgres:@", "shop_search:@"), autocommit=True) as searcher,
    ):
        wait_fresh(worker)
        found = editions.find(connection, owner.sync[0])
        new = swap.proposed(found, {"where": "id <= 10"})
        swap.begin(connection, found, new, swap.view_name(connection, found, NULL))
        apply(connection, new, NULL, "freshvec_worker")
        until("the second is filled", lambda: count(admin, "articles_embedding_2") == 10)
        wait_fresh(worker)
        assert count(searcher, "articles_embedded") == 50
        swap.show(connection, (new, NULL), (found.shown, NULL), keep_seconds=0.0)
        assert count(searcher, "articles_embedded") == 10
        assert searcher.execute("SELECT freshvec.is_fresh('docs', '3')").fetchone() == (True,)
        until("the worker keeps one", lambda: [each.sync.name for each in worker.keepers] == ["docs.2"])
        assert count(admin, "articles_embedding") == 50, "it may not take the other one away"
        admin.execute("UPDATE articles SET body = 'edited' WHERE id = 3")
        wait_fresh(worker)
        swap.take_away(connection, "docs")
        assert count(admin, "freshvec.sync") == 1
        assert count(searcher, "articles_embedded") == 10


def test_the_worker_can_make_nothing_and_not_write_the_table(shop: tuple[str, Connection]) -> None:
    url, _ = shop
    with psycopg.connect(
        settings_of(url, "freshvec_worker").database.url.get_secret_value(), autocommit=True
    ) as session:
        for refused in (
            "CREATE TABLE public.t ()",
            "CREATE TABLE freshvec.t ()",
            "CREATE SCHEMA s",
            "INSERT INTO articles VALUES (100, 'x')",
            "UPDATE articles SET body = 'x'",
            "DELETE FROM articles",
            "TRUNCATE articles_embedding",
            "ALTER TABLE articles DISABLE TRIGGER ALL",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(refused)


def test_the_search_role_searches_and_sees_nothing_else(shop: tuple[str, Connection]) -> None:
    url, _ = shop
    with running(settings_of(url, "freshvec_worker"), NullEncoder()) as worker:
        wait_fresh(worker)
    with psycopg.connect(
        settings_of(url, "shop_search").database.url.get_secret_value(), autocommit=True
    ) as session:
        assert session.execute("SELECT freshvec.is_fresh('docs', '1')").fetchone() == (True,)
        nearest = "SELECT id FROM articles_embedded ORDER BY embedding <=> %s::vector LIMIT 5"
        assert len(session.execute(nearest, (str([1.0] * 8),)).fetchall()) == 5
        for refused in (
            "SELECT * FROM freshvec.status",
            "SELECT * FROM freshvec.progress",
            "SELECT * FROM freshvec.lag",
            "DELETE FROM articles_embedding",
            "SELECT * FROM freshvec.sync",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(refused)


RELATIONS = """
SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname IN ('freshvec', 'public') AND relkind IN ('r', 'v', 'p', 'S')
   AND c.oid NOT IN (SELECT objid FROM pg_depend WHERE deptype = 'e')
"""
FUNCTIONS = """
SELECT p.proname::text,
       (SELECT string_agg('NULL::' || format_type(t, NULL), ', ') FROM unnest(p.proargtypes) AS t)
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname = 'freshvec' AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
"""


VIEWS = ("freshvec.status", "freshvec.progress", "freshvec.lag")
HARMLESS = (  # or granted
    "shown",
    "sync_status",
    "sync_progress",
    "sync_index",
    "sync_indexes",
    "add_counts",
    "sum_counts",
    "lag_quantile",
)


def test_the_monitor_reads_the_status_and_nothing_else(shop: tuple[str, Connection]) -> None:
    url, admin = shop
    relations = [name for (name,) in admin.execute(RELATIONS)]
    functions = admin.execute(FUNCTIONS).fetchall()
    admin.execute("GRANT USAGE ON SCHEMA public TO shop_monitor")  # it is the tables that refuse
    assert len(relations) > 8
    assert len(functions) > 5
    with psycopg.connect(
        settings_of(url, "shop_monitor").database.url.get_secret_value(), autocommit=True
    ) as session:
        for view in VIEWS:
            assert {sync for (sync,) in session.execute(f"SELECT sync FROM {view}")} <= {"docs"}
        assert session.execute("SELECT sync FROM freshvec.status").fetchall() == [("docs",)]
        for relation in set(relations) - set(VIEWS):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(f"SELECT * FROM {relation}")
        for name, arguments in functions:
            if name not in HARMLESS and not name.startswith("is_fresh"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    session.execute(f"SELECT * FROM freshvec.{name}({arguments or ''})")
        for asked in ("'docs', '1'", "'docs'"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(f"SELECT freshvec.is_fresh({asked})")
