"""The end of a walk that proves: vectors of random rows are encoded again, and wrong ones written anew."""

from collections.abc import Sequence
from functools import partial

from freshvec.encoding.batching import plan_batches
from freshvec.encoding.dispatch import Dispatcher
from freshvec.errors import EncodingError
from freshvec.pipeline.ledger import Ledger, Portion
from freshvec.records import Fate, Outcome, Urgency, Vector
from freshvec.scans.vectors import Stored, VectorSample


class Proof:
    """One comparison. `same` and `wrong` count its vectors; both are final once nothing of it is in
    flight."""

    def __init__(
        self,
        sample: VectorSample,
        dispatcher: Dispatcher,
        precision: str | None,
        ledger: Ledger,
    ) -> None:
        self._sample = sample
        self._dispatcher = dispatcher
        self._precision = precision
        self._ledger = ledger
        self.same = 0
        self.wrong = 0

    def step(self) -> bool:
        """Hand some rows to the encoder; False when there are no more."""
        read = self._sample.next(self._dispatcher.encoder)
        if read is None:
            return False
        fence, stored, tokens = read
        if stored:
            portion = Portion(Urgency.BACKFILL, fence, len(stored))
            self._ledger.open(portion)
            for batch in plan_batches([len(text) for text in tokens], self._dispatcher.budget.next_size):
                done = partial(self._encoded, portion, [stored[i] for i in batch.indices])
                chosen = [tokens[i] for i in batch.indices]
                self._dispatcher.submit(Urgency.BACKFILL, chosen, batch.size, done, owner=self._ledger)
        return True

    def _encoded(
        self, portion: Portion, stored: Sequence[Stored], results: Sequence[Vector | Exception]
    ) -> None:
        """Called on the encoder's thread."""
        outcomes = []
        for row, again in zip(stored, results, strict=True):
            if isinstance(again, EncodingError) and again.retryable:
                self._ledger.fail(again)
                return
            if isinstance(again, Exception) or row.agrees(again, self._precision):
                self.same += not isinstance(again, Exception)
                outcomes.append(Outcome(row.key, portion.fence, Fate.KEEP, content_hash=row.content_hash))
                continue
            self.wrong += 1
            self._dispatcher.recent.put(row.text_hash, again)
            outcomes.append(row.corrected(portion.fence, again))
        self._ledger.put(portion, outcomes)
