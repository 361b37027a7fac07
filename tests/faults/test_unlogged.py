"""A crash of the server empties unlogged tables, and no trigger fires: nothing is stale afterwards."""

import psycopg

from freshvec.embedded import EmbeddedPostgres
from tests.support import Connection, NullEncoder, count, running, settings_for, sync_of, wait_fresh

# Which table of a sync is unlogged. Of the last one none is.
UNLOGGED = {
    "source": "source",
    "part": "part_1",
    "target": "target_embedding",
    "queue": "freshvec.queue_queue",
    "logged": None,
}
STALE = """{0} AS d FULL JOIN {0}_embedding AS t USING (id)
 WHERE t.content_hash IS DISTINCT FROM substring(sha256(convert_to(d.body, 'UTF8')) FROM 1 FOR 16)"""


def test_what_a_crash_empties_is_walked() -> None:
    with EmbeddedPostgres(18, fsync="off") as server:
        syncs = [sync_of(name, name=name) for name in UNLOGGED]
        settings, encoder = settings_for(server.url(), *syncs), NullEncoder()
        with psycopg.connect(server.url(), autocommit=True) as app:
            make(app)
        with running(settings, encoder) as worker:
            wait_fresh(worker)
        with psycopg.connect(server.url(), autocommit=True) as app:
            for name, table in UNLOGGED.items():
                if table is not None:
                    app.execute(f"ALTER TABLE {table} SET UNLOGGED".encode())
                app.execute(f"UPDATE {name} SET body = 'edited' WHERE id = 1".encode())
            app.execute("CHECKPOINT")
        server.run("pg_ctl", "-D", str(server.data), "-m", "immediate", "-w", "stop")
        server.start()
        with psycopg.connect(server.url(), autocommit=True) as app:
            assert [name for name in UNLOGGED if count(app, name) == 0] == ["source"]
            assert count(app, "part") == 4
            assert count(app, "target_embedding") == count(app, "freshvec.queue_queue") == 0
            app.execute("INSERT INTO source VALUES (100, 'after the crash')")
            with running(settings, encoder) as worker:
                wait_fresh(worker)
                assert [name for name in UNLOGGED if count(app, STALE.format(name))] == []
            walked = (
                "SELECT name FROM freshvec.sync WHERE walk_started_at > pg_postmaster_start_time() ORDER BY 1"
            )
            assert [name for (name,) in app.execute(walked)] == ["part", "queue", "source", "target"]


def make(app: Connection) -> None:
    app.execute("CREATE EXTENSION vector")
    app.execute("CREATE TABLE part (id bigint PRIMARY KEY, body text) PARTITION BY RANGE (id)")
    app.execute("CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (6)")
    app.execute("CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (6) TO (20)")
    for name in UNLOGGED:
        app.execute(f"CREATE TABLE IF NOT EXISTS {name} (id bigint PRIMARY KEY, body text)".encode())
        app.execute(f"INSERT INTO {name} SELECT g, 'text ' || g FROM generate_series(0, 9) g".encode())
