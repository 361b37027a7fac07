"""Workers that share a sync: each has its shards, all of them walk, one leads."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from psycopg import sql

from tests.integration.sharing import (
    done_by,
    encoded_by,
    fill,
    is_at_rest,
    is_fair,
    shards,
    shared,
    together,
)
from tests.staleness import stale
from tests.support import Connection, NullEncoder, backfill, count, running, settings_for, sync_of, until


def test_all_of_them_walk_and_each_has_changes_of_its_own(docs: Connection) -> None:
    fill(docs, 20_000)
    with together(docs, 3) as workers:
        until("all is fresh", lambda: is_at_rest(docs))
        before = [done_by(worker) for worker in workers]
        assert sum(before) >= 20_000
        assert docs.execute("SELECT count(*) FROM freshvec.range").fetchone() == (0,)
        encoded = encoded_by(workers)
        docs.execute("UPDATE docs SET body = body || ' changed' WHERE id <= 3000")
        until("the changes are in", lambda: is_at_rest(docs))
        assert encoded_by(workers) - encoded == 3000
        changes = [done_by(worker) - count for worker, count in zip(workers, before, strict=True)]
        assert sum(changes) == 3000, "each change was one worker's"
        assert min(changes) > 600
        assert stale(docs, NullEncoder()) == []
        until(
            "all is counted",
            lambda: docs.execute("SELECT rows_embedded FROM freshvec.sync").fetchone() == (20_000,),
        )


def test_a_walk_of_many_encodes_each_row_once(docs: Connection) -> None:
    with together(docs, 3) as workers:
        until("all is fresh", lambda: is_at_rest(docs))
        docs.execute("ALTER TABLE docs DISABLE TRIGGER ALL")
        fill(docs, 15_000)
        docs.execute("ALTER TABLE docs ENABLE TRIGGER ALL")
        docs.execute("INSERT INTO freshvec.rescan (sync, reason) VALUES ('docs', 'a test')")
        for worker in workers:
            worker.sweep()
        until("the walk is over", lambda: is_at_rest(docs))
        assert stale(docs, NullEncoder()) == []
        assert encoded_by(workers) == 15_000
        assert min(done_by(worker) for worker in workers) > 1000


def test_a_partitioned_table_is_shared_like_any_other(application: Connection) -> None:
    application.execute("CREATE TABLE docs (id bigint PRIMARY KEY, body text) PARTITION BY RANGE (id)")
    for first in (0, 4000, 8000):
        bounds = f"FROM ({first}) TO ({first + 4000})"
        application.execute(f"CREATE TABLE docs_{first} PARTITION OF docs FOR VALUES {bounds}".encode())
    fill(application, 11_000)
    with together(application, 2) as workers:
        until("all is fresh", lambda: is_at_rest(application))
        assert min(done_by(worker) for worker in workers) > 500
        application.execute("UPDATE docs SET body = body || ' changed' WHERE id % 4 = 0")
        application.execute("DELETE FROM docs WHERE id < 100")
        application.execute("UPDATE docs SET id = id - 10950 WHERE id > 10960")  # into another partition
        until("the changes are in", lambda: is_at_rest(application))
        assert stale(application, NullEncoder()) == []


def test_a_walk_is_begun_by_the_one_that_leads_and_joined_by_all(docs: Connection) -> None:
    fill(docs, 20_000)
    with together(docs, 2, page_rows=50) as workers:
        until("all is fresh", lambda: is_at_rest(docs))
        before = [done_by(worker) for worker in workers]
        docs.execute("TRUNCATE docs")
        fill(docs, 15_000)
        until("the walk is over", lambda: is_at_rest(docs))
        assert all(done_by(worker) > count + 1000 for worker, count in zip(workers, before, strict=True))
        assert stale(docs, NullEncoder()) == []
        (found,) = (
            docs.execute("SELECT proven_at > now() - interval '1 minute' FROM freshvec.sync").fetchone() or ()
        )
        assert found


def test_lone_edits_are_heard_by_whoever_has_their_shard(docs: Connection) -> None:
    """Also after the one that is rung, and the one that leads, have gone. Nobody sweeps."""
    fill(docs, 64)
    settings = shared(docs)
    with ExitStack() as stack:
        first = stack.enter_context(running(settings, NullEncoder()))
        until("the first one has all", lambda: is_fair(docs, 1))
        with running(settings, NullEncoder()):
            until("two share", lambda: is_fair(docs, 2))
            until("all is fresh", lambda: is_at_rest(docs))
            edit_each(docs, "with two")
            first.stop()
            until("one is left", lambda: is_fair(docs, 1))
            edit_each(docs, "with one")
            assert stale(docs, NullEncoder()) == []


def edit_each(docs: Connection, text: str) -> None:
    for row in range(1, 65, 7):
        docs.execute("UPDATE docs SET body = %s WHERE id = %s", (f"{text} {row}", row))
        until(f"row {row} is heard of, {text}", lambda: count(docs, "freshvec.queue_docs") == 0, 20)


def test_one_that_keeps_a_sync_alone_and_those_who_share_leave_it_to_each_other(docs: Connection) -> None:
    fill(docs, 10)
    with running(shared(docs, share=False), NullEncoder()) as alone:
        until("it keeps the sync", lambda: bool(alone.keepers) and alone.keepers[0].is_fresh)
        with running(shared(docs), NullEncoder()) as sharing:
            until("it stands by", lambda: sharing.keepers[0].stands_by)
            alone.stop()
            until("it has taken over", lambda: shards(docs) == [64])
            with running(shared(docs, share=False), NullEncoder()) as again:
                until("another stands by", lambda: again.keepers[0].stands_by)
                sharing.stop()
                until("that one has it", lambda: again.keepers[0].is_fresh)
                assert shards(docs) == []
                docs.execute("UPDATE docs SET body = 'later'")
                until("it keeps it fresh", lambda: is_at_rest(docs))
    assert stale(docs, NullEncoder()) == []


def test_once_together(docs: Connection) -> None:
    """Each ends when all is fresh, the walk that was begun for it included."""
    fill(docs, 5000)
    for text in ("first", "second"):
        with ThreadPoolExecutor() as threads:
            ends = [threads.submit(backfill, shared(docs), NullEncoder(0.001)) for _ in range(2)]
        assert sum(done_by(end.result()) for end in ends) >= 5000
        assert stale(docs, NullEncoder()) == [], text
        with unnoted(docs):
            docs.execute("UPDATE docs SET body = concat(body, %s::text) WHERE id %% 2 = 0", (text,))


@contextmanager
def unnoted(docs: Connection) -> Iterator[None]:
    """Changes that no trigger sees."""
    triggers = docs.execute("SELECT tgname FROM pg_trigger WHERE tgrelid = 'docs'::regclass").fetchall()
    for (name,) in triggers:
        docs.execute(sql.SQL("ALTER TABLE docs DISABLE TRIGGER {}").format(sql.Identifier(name)))
    yield
    for (name,) in triggers:
        enable = "ENABLE REPLICA" if "replica" in name else "ENABLE"
        docs.execute(sql.SQL(f"ALTER TABLE docs {enable} TRIGGER {{}}").format(sql.Identifier(name)))


def test_one_with_another_definition_leaves_all_to_the_others_until_they_are_gone(docs: Connection) -> None:
    fill(docs, 100)
    docs.execute("ALTER TABLE docs ADD COLUMN title text DEFAULT 'title'")
    other = settings_for(docs.info.dsn, sync_of("docs", columns=["title"]), share=True)
    with running(shared(docs), NullEncoder()) as first:
        until("it has all", lambda: shards(docs) == [64])
        with running(other, NullEncoder()) as second:
            until("the other one is aside", lambda: second.keepers[0].wants_ownership)
            docs.execute("UPDATE docs SET body = 'changed'")
            until("nothing waits", lambda: is_at_rest(docs))
            until("one has all", lambda: shards(docs) == [64])
            assert stale(docs, NullEncoder()) == []
            first.stop()
            until("it has applied its own", lambda: second.keepers[0].is_fresh)
            hashes = "SELECT count(DISTINCT content_hash) FROM docs_embedding"
            until("all have the title's vector", lambda: docs.execute(hashes).fetchone() == (1,))


def test_our_schema_is_dropped_while_they_share(docs: Connection) -> None:
    fill(docs, 200)
    with together(docs, 2, sweep_seconds=1.0):
        until("all is fresh", lambda: is_at_rest(docs))
        docs.execute("DROP SCHEMA freshvec CASCADE")
        docs.execute("UPDATE docs SET body = 'after'")
        until("it is there again", lambda: is_fair(docs, 2))
        until("all is fresh", lambda: is_at_rest(docs))
        assert stale(docs, NullEncoder()) == []
