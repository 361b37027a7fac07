"""From rows to outcomes: what needs no encoding at once, the rest through the tokenizer and the encoder."""

import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from freshvec.encoding.batching import plan_batches
from freshvec.encoding.dispatch import Dispatcher
from freshvec.errors import EncodingError
from freshvec.pipeline.ledger import Ledger, Portion
from freshvec.pipeline.progress import Progress
from freshvec.records import Fate, Key, Outcome, SourceRow, Tokens, Urgency, Vector
from freshvec.source.bound import BoundSync
from freshvec.source.rows import RowReader, without_last_word


class Texts:
    """The texts of one sync's rows, each encoded once however many rows have it.

    `slice_size` texts are tokenised at a time. Called on the reader's thread, but for `_encoded`.
    """

    def __init__(
        self,
        bound: BoundSync,
        dispatcher: Dispatcher,
        progress: Progress,
        ledger: Ledger,
        rows: RowReader,
        slice_size: int,
    ) -> None:
        self._bound = bound
        self._dispatcher = dispatcher
        self._encoder = dispatcher.encoder
        self._progress = progress
        self._ledger = ledger
        self._rows = rows
        self._slice = slice_size

    def handle(self, portion: Portion, rows: list[SourceRow], between: Callable[[], object]) -> None:
        """Pass on what needs no encoding at once, the rest by way of the encoder; each distinct text once.

        `between` is called after each slice of the texts.
        """
        groups = self._pass_on_known(portion, rows)
        tokens: list[Tokens] = []
        for start in range(0, len(groups), self._slice):
            tokens += self._tokenize(portion, groups[start : start + self._slice])
            between()
        self._submit(portion, [group for group in groups if group], tokens)

    def _pass_on_known(self, portion: Portion, rows: list[SourceRow]) -> list[list[SourceRow]]:
        """Put what needs no encoding; the other rows come back, those of one text together."""
        ready = []
        texts: dict[bytes, list[SourceRow]] = {}
        for row in rows:
            if (outcome := self._known(portion, row)) is not None:
                ready.append(outcome)
            elif row.content_hash is not None:
                texts.setdefault(row.content_hash, []).append(row)
        self._ledger.put(portion, ready)
        return list(texts.values())

    def _known(self, portion: Portion, row: SourceRow) -> Outcome | None:
        """What becomes of a row that needs no encoding; None for one that does."""
        key, fence = row.key, portion.fence
        if row.error is not None:
            return Outcome(key, fence, Fate.STORE, error=row.error)
        if row.content_hash is None:
            # No text. While an older reading of the row may still be written, a tombstone keeps it out.
            if self._ledger.has_older(portion):
                return Outcome(key, fence, Fate.STORE)
            return Outcome(key, fence, Fate.KEEP if row.unchanged else Fate.CLEAR)
        if row.unchanged:
            is_page = portion.urgency is Urgency.BACKFILL
            fate = Fate.KEEP if is_page and not self._ledger.has_older(portion) else Fate.TOUCH
            return Outcome(key, fence, fate, content_hash=row.content_hash)
        known = self._remembered(row.content_hash)
        return None if known is None else Outcome(key, fence, Fate.STORE, known, row.content_hash)

    def _remembered(self, content_hash: bytes) -> Vector | None:
        """The vector of a text that was encoded lately."""
        return self._dispatcher.recent.get(content_hash)

    def _tokenize(self, portion: Portion, groups: list[list[SourceRow]]) -> list[Tokens]:
        """Tokens of each group's text. A group whose rows have all changed meanwhile is emptied and left
        out."""
        limit = self._bound.max_characters
        texts = [without_last_word(group[0].text or "", limit) for group in groups]
        with self._progress.stages.timed("tokenise"):
            tokenised = self._encoder.tokenize(texts)
        tokens = []
        for group, found in zip(groups, tokenised, strict=True):
            if len(group[0].text or "") < limit or found.truncated:
                tokens.append(found)
            elif whole := self._whole(portion, group):
                tokens += self._encoder.tokenize([whole])
        return tokens

    def _whole(self, portion: Portion, group: list[SourceRow]) -> str | None:
        """The whole text of a group whose beginning does not fill the model; None where no row has it any
        more.

        It is read again, and a row may have been written meanwhile. Such a row leaves the group, and goes on
        as it is now: that reading is later than the portion's fence, so its fence is that of this text too.
        Nothing is encoded but the very text whose hash is stored with it.
        """
        while group:
            row = group[0]
            (again,) = self._rows.read([row.key], whole=True)
            if again is not None and again.text is not None and again.content_hash == row.content_hash:
                return again.text
            group.pop(0)
            if again is None:
                self._ledger.put(portion, removed(portion, [row.key]))
                continue
            # Under the key that the portion knows it by: its queue entries are noted there.
            for changed in self._pass_on_known(portion, [replace(again, key=row.key)]):
                self._submit(portion, [changed], self._encoder.tokenize([changed[0].text or ""]))
        return None

    def _submit(self, portion: Portion, groups: list[list[SourceRow]], tokens: list[Tokens]) -> None:
        """Hand texts to the encoder in batches, each with the rows that have it."""
        cut = sum(len(group) for group, text in zip(groups, tokens, strict=True) if text.truncated)
        self._progress.truncated(cut)
        batches = plan_batches([len(text) for text in tokens], self._dispatcher.budget.next_size)
        # Longest first, the ETA would mislead and the search for the best size see one length at a time.
        random.shuffle(batches)
        for batch in batches:
            done = partial(self._encoded, portion, [_textless(groups[i]) for i in batch.indices])
            chosen = [tokens[i] for i in batch.indices]
            self._dispatcher.submit(portion.urgency, chosen, batch.size, done, owner=self._ledger)

    def _encoded(
        self, portion: Portion, groups: list[list[SourceRow]], results: list[Vector | Exception]
    ) -> None:
        """Called on the encoder's thread: a batch is done."""
        outcomes = []
        for group, result in zip(groups, results, strict=True):
            if isinstance(result, EncodingError) and result.retryable:
                self._ledger.fail(result)
                return
            error = str(result)[:500] if isinstance(result, Exception) else None
            vector = None if isinstance(result, Exception) else result
            if vector is not None and group[0].content_hash is not None:
                self._dispatcher.recent.put(group[0].content_hash, vector)
            outcomes += [
                Outcome(row.key, portion.fence, Fate.STORE, vector, row.content_hash, error) for row in group
            ]
        self._ledger.put(portion, outcomes)


def _textless(group: list[SourceRow]) -> list[SourceRow]:
    """Rows without their texts, which are tokenised: thousands may wait for the encoder."""
    return [replace(row, text=None) for row in group]


def removed(portion: Portion, keys: Iterable[Key]) -> list[Outcome]:
    """What becomes of keys that no row has any more."""
    return [Outcome(key, portion.fence, Fate.REMOVE) for key in keys]
