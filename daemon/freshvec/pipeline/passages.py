"""From rows whose texts are cut into passages to outcomes: of each row what it lacks is encoded."""

import hashlib
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from freshvec.db import Session
from freshvec.encoding.batching import plan_batches
from freshvec.encoding.dispatch import Dispatcher
from freshvec.encoding.passages import split
from freshvec.errors import EncodingError
from freshvec.pipeline.ledger import Ledger, Portion
from freshvec.pipeline.progress import Progress
from freshvec.pipeline.texts import Texts
from freshvec.records import Fate, Outcome, Passage, SourceRow, Tokens, Vector
from freshvec.source.bound import BoundSync
from freshvec.source.rows import RowReader
from freshvec.target import passages

# A live change waits for so many of a portion's texts, and a row is written once all of its passages are
# encoded, which are batched among those of so many.
_CHARACTERS = 100_000


@dataclass(eq=False)
class _Row:
    """A row under way: its passages, and how many of them still lack their vectors."""

    row: SourceRow
    passages: list[Passage]
    missing: int = 0
    error: str | None = None


@dataclass
class _Text:
    """The text of a passage that is to be encoded, and where it stands: rows, and places among theirs."""

    text: str
    content_hash: bytes
    where: list[tuple[_Row, int]] = field(default_factory=list)


class PassageTexts(Texts):
    """The texts of one sync's rows, cut into passages; each distinct passage is encoded once.

    A passage that the target has of its row already is not encoded again.
    """

    def __init__(
        self,
        connection: Session,
        bound: BoundSync,
        dispatcher: Dispatcher,
        progress: Progress,
        ledger: Ledger,
        rows: RowReader,
        slice_size: int,
    ) -> None:
        super().__init__(bound, dispatcher, progress, ledger, rows, slice_size)
        self._connection = connection
        self._counting = threading.Lock()  # what rows are missing

    def handle(self, portion: Portion, rows: list[SourceRow], between: Callable[[], object]) -> None:
        changed = [row for group in self._pass_on_known(portion, rows) for row in group]
        while changed:
            self._encode(portion, _first(changed))
            between()

    def _remembered(self, content_hash: bytes) -> Vector | None:
        return None  # a row's hash is not that of a passage

    def _encode(self, portion: Portion, rows: list[SourceRow]) -> None:
        """Cut these rows' texts, and hand what they lack to the encoder; rows that lack nothing are ready."""
        kept = passages.kept(self._connection, self._bound, [row.key for row in rows])
        texts: dict[bytes, _Text] = {}
        with self._progress.stages.timed("tokenise"):
            ready = [self._cut(row, has, texts) for row, has in zip(rows, kept, strict=True)]
            chosen = list(texts.values())
            tokens = self._encoder.tokenize([each.text for each in chosen])
        # Words that were counted apart may be more together: what is cut off is at least counted.
        self._progress.truncated(sum(one.truncated for one in tokens))
        self._ledger.put(portion, [_outcome(portion, row) for row in ready if not row.missing])
        self._submit_passages(portion, chosen, tokens)

    def _cut(self, row: SourceRow, kept: set[bytes], texts: dict[bytes, _Text]) -> _Row:
        """A row with its passages; those that are to be encoded are put to the texts."""
        text = row.text or ""
        cut = _Row(replace(row, text=None), [])
        for begin, end in self._spans(text):
            passage = text[begin:end]
            content_hash = hashlib.sha256(passage.encode()).digest()[:16]
            vector = None if content_hash in kept else self._dispatcher.recent.get(content_hash)
            cut.passages.append(Passage(begin, end, content_hash, vector))
            if content_hash not in kept and vector is None:
                each = texts.setdefault(content_hash, _Text(passage, content_hash))
                each.where.append((cut, len(cut.passages) - 1))
                cut.missing += 1
        return cut

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Where a text is cut: as declared, and no more than the model reads."""
        chunk, empty = self._bound.sync.chunk, len(self._encoder.tokenize([""])[0])
        assert chunk is not None
        reads = self._encoder.max_tokens - empty

        def count(texts: list[str]) -> list[int]:
            found = self._encoder.tokenize(texts)
            return [len(one) - empty + one.truncated for one in found]

        limit = min(chunk.tokens or reads, reads)
        return split(text, count, limit, min(chunk.overlap, limit // 2)) or [(0, len(text))]

    def _submit_passages(self, portion: Portion, texts: list[_Text], tokens: list[Tokens]) -> None:
        batches = plan_batches([len(each) for each in tokens], self._dispatcher.budget.next_size)
        random.shuffle(batches)
        for batch in batches:
            done = partial(self._have_encoded, portion, [_textless(texts[i]) for i in batch.indices])
            chosen = [tokens[i] for i in batch.indices]
            self._dispatcher.submit(portion.urgency, chosen, batch.size, done, owner=self._ledger)

    def _have_encoded(self, portion: Portion, texts: list[_Text], results: list[Vector | Exception]) -> None:
        """Called on a thread of the encoder's: a batch is done."""
        ready: list[_Row] = []
        for each, result in zip(texts, results, strict=True):
            if isinstance(result, EncodingError) and result.retryable:
                self._ledger.fail(result)
                return
            if not isinstance(result, Exception):
                self._dispatcher.recent.put(each.content_hash, result)
            with self._counting:  # two batches may have passages of one row, on two threads
                ready += _completed(each, result)
        self._ledger.put(portion, [_outcome(portion, row) for row in ready])


def _completed(text: _Text, result: Vector | Exception) -> list[_Row]:
    """Give its vector to each row that has this passage; gives those that lack nothing any more."""
    ready = []
    for row, place in text.where:
        row.missing -= 1
        if isinstance(result, Exception):
            row.error = str(result)[:500]
        else:
            row.passages[place] = replace(row.passages[place], embedding=result)
        if not row.missing:
            ready.append(row)
    return ready


def _first(rows: list[SourceRow]) -> list[SourceRow]:
    """Some rows, taken away from the others."""
    characters, taken = 0, []
    while rows and characters < _CHARACTERS:
        taken.append(rows.pop(0))
        characters += len(taken[-1].text or "")
    return taken


def _outcome(portion: Portion, row: _Row) -> Outcome:
    """What is written of a row that lacks nothing any more."""
    made = () if row.error else tuple(row.passages)
    key, content_hash = row.row.key, row.row.content_hash
    return Outcome(key, portion.fence, Fate.STORE, None, content_hash, row.error, made)


def _textless(text: _Text) -> _Text:
    """Without its text, which is tokenised: thousands may wait for the encoder."""
    return replace(text, text="")
