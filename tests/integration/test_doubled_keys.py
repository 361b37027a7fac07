"""A parent and its children may have rows of one key, which no index forbids: one row stands for both, and
all others become fresh."""

from typing import Any

import pytest

from tests.integration.at_rest import Kept
from tests.support import NullEncoder, content_hash, count, running, settings_for, sync_of, wait_fresh

SYNCS: dict[str, dict[str, Any]] = {
    "rows": {},
    "real[]": {"target": {"type": "real[]"}},
    "passages": {"chunk": {"tokens": 16, "overlap": 4}},
    "column": {"target": {"column": "embedding"}},
}


@pytest.mark.parametrize("more", SYNCS.values(), ids=SYNCS.keys())
def test_a_key_in_parent_and_child_keeps_no_other_row_waiting(kept: Kept, more: dict[str, Any]) -> None:
    kept.app.execute("CREATE TABLE more () INHERITS (docs)")
    kept.app.execute("INSERT INTO more (id, body) VALUES (1, 'of the child'), (2, 'refused')")
    encoder = NullEncoder(refuse="refused")
    with running(settings_for(kept.url, sync_of("docs", **more)), encoder) as worker:
        wait_fresh(worker)
        kept.app.execute("UPDATE ONLY docs SET body = 'again' WHERE id < 4")
        kept.app.execute("UPDATE more SET body = 'of the child again' WHERE id = 1")
        kept.app.execute("UPDATE more SET body = 'refused again' WHERE id = 2")
        wait_fresh(worker)
    assert count(kept.app, "freshvec.queue_docs") == 0
    assert count(kept.app, "docs_embedding") == 50
    failed = kept.app.execute("SELECT id FROM docs_embedding WHERE encode_error IS NOT NULL").fetchall()
    assert failed in ([], [(2,)]), "it is either of the two that stands for both"
    if "chunk" not in more:
        (held,) = kept.app.execute("SELECT content_hash FROM docs_embedding WHERE id = 3").fetchone() or (0,)
        assert held == content_hash("again")


@pytest.mark.parametrize("more", SYNCS.values(), ids=SYNCS.keys())
def test_a_doubled_row_that_is_read_again_as_it_was(kept: Kept, more: dict[str, Any]) -> None:
    kept.app.execute("CREATE TABLE more () INHERITS (docs); UPDATE docs SET body = 'same' WHERE id = 1")
    kept.app.execute("INSERT INTO more (id, body) VALUES (1, 'same')")
    with running(settings_for(kept.url, sync_of("docs", **more)), NullEncoder()) as worker:
        wait_fresh(worker)
        with kept.app.transaction():
            kept.app.execute("UPDATE ONLY docs SET body = 'other' WHERE id = 1")
            kept.app.execute("UPDATE ONLY docs SET body = 'same' WHERE id = 1")
        wait_fresh(worker)
    assert count(kept.app, "docs_embedding WHERE encode_error IS NOT NULL") == 0


def test_a_doubled_row_whose_vector_is_refused(column: Kept) -> None:
    column.app.execute("CREATE TABLE more () INHERITS (docs)")
    column.app.execute("INSERT INTO more (id, body) VALUES (1, 'of the child')")
    with running(settings_for(column.url, column.sync), NullEncoder()) as worker:
        wait_fresh(worker)
        column.app.execute("ALTER TABLE docs ADD CHECK (id <> 1 OR embedding IS NULL OR body = '') NOT VALID")
        column.app.execute("UPDATE docs SET body = 'again', embedding = NULL")
        wait_fresh(worker)
    failed = column.app.execute("SELECT id FROM docs_embedding WHERE encode_error IS NOT NULL").fetchall()
    assert failed == [(1,)]
