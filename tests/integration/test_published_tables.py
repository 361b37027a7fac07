"""Where all tables of the database are published, ours are as well: what we delete and update may be."""

from typing import Any

import pytest

from tests.integration.at_rest import Kept
from tests.staleness import stale
from tests.support import (
    Connection,
    NullEncoder,
    backfill,
    count,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
)

PUBLICATIONS = {
    "all tables": "CREATE PUBLICATION everything FOR ALL TABLES",
    "a schema": "CREATE PUBLICATION ours FOR TABLES IN SCHEMA freshvec, public",
}
SYNCS: dict[str, dict[str, Any]] = {
    "rows": {},
    "passages": {"chunk": {"tokens": 16, "overlap": 4}},
    "column": {"target": {"column": "embedding"}},
}
NO_KEY = """pg_class AS c WHERE relkind = 'r' AND relreplident <> 'f'
    AND relnamespace IN ('freshvec'::regnamespace, 'public'::regnamespace)
    AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary)"""


@pytest.mark.parametrize("publication", PUBLICATIONS.values(), ids=PUBLICATIONS.keys())
@pytest.mark.parametrize("more", SYNCS.values(), ids=SYNCS.keys())
def test_every_edit_becomes_fresh(kept: Kept, publication: str, more: dict[str, Any]) -> None:
    encoder = NullEncoder()
    settings = settings_for(kept.url, sync_of("docs", **more))
    kept.app.execute("SET client_min_messages = error")
    with running(settings, encoder) as worker:
        wait_fresh(worker)
        kept.app.execute(publication.encode())
        kept.app.execute("UPDATE docs SET body = 'new' WHERE id = 1")
        kept.app.execute("UPDATE docs SET body = NULL WHERE id = 2")
        kept.app.execute("DELETE FROM docs WHERE id = 3")
        kept.app.execute("SELECT freshvec.ask_for_walk('docs', 'truncate')")
        wait_fresh(worker)
    assert count(kept.app, "freshvec.queue_docs") == 0
    assert count(kept.app, "docs_embedding WHERE content_hash IS NOT NULL") == 48
    assert count(kept.app, NO_KEY) == 0


def test_a_publication_that_keeps_a_target_from_being_written_is_said(kept: Kept) -> None:
    kept.app.execute("SET client_min_messages = error")
    with kept.running() as worker:
        kept.app.execute("CREATE PUBLICATION filtered FOR TABLE docs_embedding WHERE (fence > 0)")
        kept.app.execute("UPDATE docs SET body = 'new' WHERE id = 1")
        worker.sweep()
        until("it is said", lambda: "REPLICA IDENTITY FULL" in (kept.status()["last_error"] or ""))
        kept.app.execute("ALTER TABLE docs_embedding REPLICA IDENTITY FULL")
        kept.comes_to_rest(worker)


def test_a_queue_that_was_made_before_is_mended_once(url: str, docs: Connection) -> None:
    settings, encoder = settings_for(url, sync_of("docs")), NullEncoder()
    docs.execute("INSERT INTO docs VALUES (1, 'a')")
    backfill(settings, encoder)
    docs.execute("ALTER TABLE freshvec.queue_docs REPLICA IDENTITY DEFAULT")
    docs.execute("UPDATE freshvec.sync SET shape = 'that of a version before'")
    docs.execute("SET client_min_messages = error")
    docs.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    with running(settings, encoder) as worker:
        wait_fresh(worker)
        docs.execute("UPDATE docs SET body = 'b'")
        wait_fresh(worker)
    assert not stale(docs, encoder)
    assert count(docs, "freshvec.queue_docs") == 0


def test_a_queue_that_is_right_is_not_locked(url: str, docs: Connection) -> None:
    """An update makes all functions anew, while the application holds entries of its own in the queue."""
    settings, encoder = settings_for(url, sync_of("docs")), NullEncoder()
    backfill(settings, encoder)
    docs.execute("UPDATE freshvec.sync SET shape = 'that of a version before'")
    with docs.transaction():
        docs.execute("INSERT INTO docs VALUES (1, 'a')")
        backfill(settings, encoder)
    assert count(docs, "freshvec.sync WHERE shape <> 'that of a version before'") == 1
