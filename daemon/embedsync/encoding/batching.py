"""Batches by padded tokens: every row of a batch is padded to its longest, so equal lengths go together."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedsync.records import Tokens


def plan_batches(lengths: Sequence[int], budget: int, max_rows: int = 4096) -> list[list[int]]:
    """Indices of `lengths` in batches, longest texts first, with longest × count ≤ `budget` in each.

    A text longer than the budget makes a batch of its own. Sorting by length within a window and packing by
    padded tokens follows text-embeddings-inference and sentence-transformers.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    batches: list[list[int]] = []
    for index in order:
        current = batches[-1] if batches else None
        if current and len(current) < max_rows and lengths[current[0]] * (len(current) + 1) <= budget:
            current.append(index)
        else:
            batches.append([index])
    return batches


def padding_waste(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """Share of the padded tokens that are padding, 0 to 1."""
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    return 1 - sum(lengths) / padded if padded else 0.0


def padded(batch: Sequence[Tokens], pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and mask, int64 `[len(batch), longest]`, padded on the right."""
    ids = np.full((len(batch), max(map(len, batch))), pad_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, text in enumerate(batch):
        ids[row, : len(text)] = text.ids
        mask[row, : len(text)] = 1
    return ids, mask
