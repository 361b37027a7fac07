"""An expression and a condition that name their table, as `docs.body`: kept wherever vectors lie."""

from typing import Any

import pytest

from freshvec.db import connect
from freshvec.encoding.rate import Rates
from freshvec.schema import cost
from freshvec.schema.plan import plan
from freshvec.target.search import search
from tests.integration.adopting import Adoption, embed
from tests.integration.at_rest import Kept
from tests.integration.locking import NULL
from tests.integration.swapping import Swapped, Wide
from tests.passages import OVERLAP, TOKENS, WordEncoder, prose, stale_passages
from tests.support import bound_sync, count, models_in, sync_of, wait_fresh

NAMED = {
    "by its name": {"expression": "docs.body", "where": "docs.views >= 0"},
    "with its schema": {"expression": "public.docs.body", "where": "public.docs.views >= 0"},
    "as a row": {"expression": "(docs).body", "where": "(docs.*).views >= 0"},
}
LAYOUTS: dict[str, tuple[dict[str, Any], str]] = {
    "target": ({}, "t.embedding"),
    "column": ({"target": {"column": "embedding"}}, "d.embedding"),
}


@pytest.mark.parametrize("named", NAMED.values(), ids=NAMED.keys())
@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_is_kept_and_searched(kept: Kept, named: dict[str, Any], layout: str) -> None:
    more, kept.vector = LAYOUTS[layout]
    kept.sync = sync_of("docs", **named, **more)
    with kept.running() as worker:
        kept.comes_to_rest(worker)
        assert count(kept.app, "docs_embedded") == count(kept.app, "docs WHERE body <> ''")
        assert kept.app.execute("SELECT freshvec.is_fresh('docs', '1')").fetchone() == (True,)
        (query,) = kept.encoder.encode(kept.encoder.tokenize(["text 7"]))
        with connect(kept.settings.database.url, "test") as connection:
            found = search(connection, bound_sync(connection, kept.settings, kept.encoder), query, 1)
        assert [(hit.key, hit.text) for hit in found] == [(("7",), "text 7")]


def test_its_passages_are_kept_and_shown(kept: Kept) -> None:
    kept.app.execute("UPDATE docs SET body = %s", (prose(12),))
    chunk = {"tokens": TOKENS, "overlap": OVERLAP}
    kept.sync = sync_of("docs", chunk=chunk, **NAMED["with its schema"])
    kept.encoder = WordEncoder()
    with kept.running() as worker:
        kept.app.execute("UPDATE docs SET body = %s WHERE id = 7", (prose(12, 7),))
        wait_fresh(worker)
        assert stale_passages(kept.app, kept.encoder, TOKENS, OVERLAP) == []
        shown = kept.app.execute("SELECT bool_and(passage IS NOT NULL) FROM docs_embedded").fetchone()
        assert shown == (True,)
        assert kept.verify().is_fresh


def test_what_it_costs_is_told(kept: Kept, models_dir: Any) -> None:
    kept.sync = sync_of("docs", **NAMED["with its schema"])
    with connect(kept.settings.database.url, "test") as connection:
        planned = plan(connection, kept.settings.sync[0], NULL)
        found = cost.of_plan(connection, planned, Rates(models_in(models_dir), is_tried=False))
    assert isinstance(found, cost.Cost), found
    assert found.rows == 50


def test_its_vectors_are_taken_over(kept: Kept) -> None:
    kept.app.execute("ALTER TABLE docs ADD embedding vector(8)")
    embed(kept.app)
    kept.sync = sync_of("docs", **NAMED["with its schema"])
    assert Adoption(kept.settings, kept.encoder).run("docs.embedding").vectors == 50
    with kept.running():
        assert kept.is_right()


def test_it_is_swapped(swapped: Swapped) -> None:
    swapped.sync = sync_of("docs", expression="public.docs.body", where="docs.title <> ''")
    with swapped.running() as worker:
        swapped.begin()
        swapped.filled(worker)
        swapped.show()
        assert swapped.wrong(Wide) == []
