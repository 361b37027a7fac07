"""Texts that somebody waits for, through a model's dispatcher and ahead of everything else."""

import asyncio
from functools import partial

from loguru import logger

from freshvec.encoding.batching import plan_batches
from freshvec.encoding.dispatch import Dispatcher
from freshvec.records import Tokens, Urgency, Vector
from freshvec.web.refusals import Refused

_ENCODE_SECONDS = 60.0


async def encode(dispatcher: Dispatcher, tokens: list[Tokens]) -> list[Vector]:
    """Vectors `[dimension]` in the order of the texts. Batches that nobody waits for are dropped.

    Raises Refused when a text cannot be encoded, or not in time.
    """
    loop, owner = asyncio.get_running_loop(), object()
    batches = plan_batches([len(text) for text in tokens], dispatcher.budget.next_size)
    waiting: list[asyncio.Future[list[Vector | Exception]]] = [loop.create_future() for _ in batches]
    for batch, future in zip(batches, waiting, strict=True):
        chosen = [tokens[i] for i in batch.indices]
        dispatcher.submit(Urgency.QUERY, chosen, batch.size, partial(_deliver, loop, future), owner=owner)
    try:
        results = await asyncio.wait_for(asyncio.gather(*waiting), _ENCODE_SECONDS)
    except TimeoutError:
        raise Refused(503, "the encoder does not answer; see the log of freshvec") from None
    finally:
        dispatcher.forget(owner)
    vectors: dict[int, Vector] = {}
    for batch, encoded in zip(batches, results, strict=True):
        for place, result in zip(batch.indices, encoded, strict=True):
            if isinstance(result, Exception):
                raise Refused(503, f"text {place} could not be encoded: {result}", param="input")
            vectors[place] = result
    return [vectors[place] for place in range(len(tokens))]


def _deliver(
    loop: asyncio.AbstractEventLoop,
    future: "asyncio.Future[list[Vector | Exception]]",
    results: list[Vector | Exception],
) -> None:
    """Runs on the dispatcher's thread, which must go on when the server is gone."""

    def deliver() -> None:
        if not future.done():
            future.set_result(results)

    try:
        loop.call_soon_threadsafe(deliver)
    except RuntimeError:
        logger.debug("an embedding was ready after its server had stopped")
