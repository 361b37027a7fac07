"""Texts encoded while the caller waits."""

import queue
from functools import partial

from freshvec.encoding.batching import plan_batches
from freshvec.encoding.dispatch import Dispatcher
from freshvec.records import Tokens, Urgency, Vector

_Done = queue.SimpleQueue[tuple[list[int], list[Vector | Exception]]]


def encode_all(dispatcher: Dispatcher, tokens: list[Tokens]) -> list[Vector]:
    """The vectors `[dimension]` of these texts, in order, behind whatever is more urgent.

    Raises what the encoder raises of any of them.
    """
    done: _Done = queue.SimpleQueue()
    batches = plan_batches([len(text) for text in tokens], dispatcher.budget.next_size)
    for batch in batches:
        chosen = [tokens[i] for i in batch.indices]
        dispatcher.submit(Urgency.BACKFILL, chosen, batch.size, partial(_put, done, batch.indices))
    vectors: dict[int, Vector] = {}
    for _ in batches:
        for index, vector in zip(*done.get(), strict=True):
            if isinstance(vector, Exception):
                raise vector
            vectors[index] = vector
    return [vectors[index] for index in range(len(tokens))]


def _put(done: _Done, indices: list[int], results: list[Vector | Exception]) -> None:
    done.put((indices, results))
