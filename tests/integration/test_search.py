"""`freshvec search`: the nearest rows, by vectors of the sync's own model alone."""

import numpy as np
import pytest

from freshvec.db import connect
from freshvec.target.search import search
from tests.support import Connection, NullEncoder, backfill, bound_sync, settings_for, sync_of


@pytest.mark.parametrize("kind", ["vector", "halfvec", "real[]"])
def test_a_vector_of_another_model_is_no_answer(url: str, docs: Connection, kind: str) -> None:
    docs.execute("INSERT INTO docs SELECT g, 'text ' || g FROM generate_series(1, 20) g")
    settings, encoder = settings_for(url, sync_of("docs", target={"type": kind})), NullEncoder()
    backfill(settings, encoder)
    docs.execute("UPDATE docs_embedding SET fingerprint = 'another model' WHERE id = 7")
    (query,) = encoder.encode(encoder.tokenize(["text 7"]))
    with connect(settings.database.url, "test") as connection:
        hits = search(connection, bound_sync(connection, settings, encoder), np.asarray(query), 20)
    assert len(hits) == 19
    assert ("7",) not in [hit.key for hit in hits]
    assert [hit.similarity for hit in hits] == sorted((hit.similarity for hit in hits), reverse=True)
