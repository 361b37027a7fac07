"""Batches by padded tokens: every row of a batch is padded to its longest, so equal lengths go together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from freshvec.records import Tokens

# Where a batch ends before a shorter text. Found by comparing plans of real texts, with a cost of 20 to 4,096
# tokens per batch.
_PADDED_TO = 0.94  # a text at least this share of the batch's longest is padded without regret
_WORTH_SENDING = 0.4  # a batch at least this full may end before a shorter one


def page_rows(device: str) -> int:
    """How many rows are read, and sorted by length, together.

    On a GPU packed batches need no equal lengths. Larger pages are no quicker there, and a live change waits
    twice as long beside them.
    """
    return 1000 if device == "cpu" else 2048


@dataclass(frozen=True)
class Batch:
    """Texts to encode together, by index; `size` is the budget they were planned for, in padded tokens."""

    indices: list[int]
    size: int


def plan_batches(lengths: Sequence[int], next_size: Callable[[], int], max_rows: int = 16384) -> list[Batch]:
    """Texts in batches, longest first, with longest × count ≤ size and at most `max_rows` texts in each.

    `lengths` are in tokens; `next_size` gives the size of each batch in padded tokens. A text longer than the
    size makes a batch of its own. A well filled batch ends before a text so much shorter that padding it
    would cost more than another batch does. Sorting by length within a window and packing by padded tokens
    follows text-embeddings-inference and sentence-transformers.
    """
    batches: list[Batch] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        last = batches[-1] if batches else None
        rows = len(last.indices) if last else 0
        longest = lengths[last.indices[0]] if last else 0
        too_short = (
            last and lengths[index] < _PADDED_TO * longest and longest * rows >= _WORTH_SENDING * last.size
        )
        if last and rows < max_rows and longest * (rows + 1) <= last.size and not too_short:
            last.indices.append(index)
        else:
            batches.append(Batch([index], next_size()))
    return batches


def padding_waste(lengths: Sequence[int], batches: Sequence[Batch]) -> float:
    """Share of the padded tokens that are padding, 0 to 1."""
    total = sum(max(lengths[i] for i in batch.indices) * len(batch.indices) for batch in batches)
    return 1 - sum(lengths) / total if total else 0.0


def padded(
    batch: Sequence[Tokens], pad_id: int, step: int = 1
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and mask, int64 `[len(batch), longest]`, padded on the right; `longest` is rounded up to `step`."""
    lengths = np.fromiter(map(len, batch), dtype=np.int64, count=len(batch))
    width = -(-int(lengths.max()) // step) * step
    mask = np.arange(width) < lengths[:, None]
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    ids[mask] = np.concatenate([text.ids for text in batch])
    return ids, mask.astype(np.int64)


def flat(batch: Sequence[Tokens]) -> dict[str, NDArray[Any]]:
    """The tokens of a batch in one row, without padding, and where they would stand among it.

    `input_ids` and `position_ids` are int32 `[1, tokens]`; `token_offset`, int32 `[len(batch), longest]`, has
    the places of the real tokens in the padded batch, then those of the padding; a text's tokens are from one
    of `cumulative_sequence_length` to the next; `attention_mask`, bool `[len(batch), longest]`, is true for
    the real ones.
    """
    lengths = np.fromiter(map(len, batch), dtype=np.int32, count=len(batch))
    ends = np.zeros(len(batch) + 1, dtype=np.int32)
    np.cumsum(lengths, out=ends[1:])
    places = np.arange(lengths.max(), dtype=np.int32)
    mask = places < lengths[:, None]
    order = [np.flatnonzero(mask), np.flatnonzero(~mask)]
    return {
        "input_ids": np.concatenate([text.ids for text in batch], dtype=np.int32, casting="same_kind")[None],
        "position_ids": np.broadcast_to(places, mask.shape)[mask][None],
        "token_offset": np.concatenate(order, dtype=np.int32, casting="same_kind").reshape(mask.shape),
        "cumulative_sequence_length": ends,
        "attention_mask": mask,
    }
