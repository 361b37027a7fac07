"""An encoder with two batches under way, each on a thread of its own."""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from freshvec.db import connect
from freshvec.encoding.budget import BatchBudget
from freshvec.encoding.dispatch import Dispatcher
from freshvec.pipeline.ledger import Ledger, Portion
from freshvec.pipeline.passages import PassageTexts
from freshvec.pipeline.progress import Progress
from freshvec.records import Outcome, SourceRow, Tokens, Urgency
from freshvec.source.rows import RowReader
from tests.passages import OVERLAP, TOKENS, WordEncoder, prose
from tests.support import Connection, backfill, bound_sync, settings_for, sync_of

Batch = tuple[Callable[..., None], list[Tokens]]


def test_two_batches_with_passages_of_one_row_may_end_at_once(
    docs: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is ready once, with both vectors."""
    encoder = WordEncoder()
    settings = settings_for(docs.info.dsn, sync_of("docs", chunk={"tokens": TOKENS, "overlap": OVERLAP}))
    backfill(settings, encoder)
    dispatcher = Dispatcher(encoder, BatchBudget(TOKENS, fixed=True))  # a passage per batch
    ledger, batches, outcomes = Ledger(), list[Batch](), list[Outcome]()
    monkeypatch.setattr(
        dispatcher, "submit", lambda _, tokens, size, done, owner: batches.append((done, tokens))
    )
    monkeypatch.setattr(ledger, "put", lambda _, ready: outcomes.extend(ready))
    with connect(settings.database.url, "test") as connection:
        bound = bound_sync(connection, settings, encoder)
        rows = RowReader(connection, bound)
        texts = PassageTexts(connection, bound, dispatcher, Progress(), ledger, rows, 100)
        text = prose(3, 1)
        row = SourceRow(("1",), text, hashlib.sha256(text.encode()).digest()[:16], unchanged=False)
        texts.handle(Portion(Urgency.LIVE, 1, 1), [row], lambda: None)

    def end(done: Callable[..., None], tokens: list[Tokens]) -> None:
        done(list(encoder.encode(tokens)))

    assert len(batches) > 1
    while len(batches) > 2:
        end(*batches.pop())
    others = [threading.Thread(target=end, args=batches.pop())]

    def while_the_other_ends(*given: Any, **more: Any) -> Any:
        if others[0].ident is None:
            others[0].start()
            others[0].join(0.2)  # it waits for its turn, or it would be through by now
        return replace(*given, **more)

    monkeypatch.setattr("freshvec.pipeline.passages.replace", while_the_other_ends)
    end(*batches.pop())
    others[0].join(60)
    dispatcher.stop(10)
    (made,) = [outcome for outcome in outcomes if outcome.passages]
    assert all(passage.embedding is not None for passage in made.passages)
