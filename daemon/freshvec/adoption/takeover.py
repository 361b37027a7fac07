"""Vectors that something else made are taken over: copied to the target, page by page, as if they had been
encoded here. Their own table stays as it is. Where they are to lie in the very column that has them, nothing
is written but what is known of them."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from freshvec.adoption.origin import Origin
from freshvec.adoption.rows import Row, Rows
from freshvec.adoption.sample import Proof
from freshvec.capture import queue
from freshvec.db import Connection, queries, translated
from freshvec.pipeline import epoch
from freshvec.pipeline.pace import Pace
from freshvec.records import Fate, Key, Outcome, Vector
from freshvec.scans.keyset import KeysetPages
from freshvec.source.bound import BoundSync
from freshvec.target import layout

_SQL = queries("adoption/takeover")
_EXAMPLES = 3
_ROUNDED = 1e-4  # a length that is this near to 1 is 1
_BEFORE_ALL = 0  # a fence that every reading of ours is later than


@dataclass
class Taken:
    """How far it is: rows looked at, vectors taken over, and why others were not (of REFUSALS)."""

    rows: int = 0
    vectors: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Key]] = field(default_factory=dict)

    def refuse(self, row: Row, reason: str) -> None:
        self.refused[reason] += 1
        if len(self.examples.setdefault(reason, [])) < _EXAMPLES:
            self.examples[reason].append(row.key)


def take_over(
    connection: Connection,
    bound: BoundSync,
    origin: Origin,
    proof: Proof,
    *,
    with_hashes: bool,
    between: Callable[[Taken], None] = lambda taken: None,
) -> Taken:
    """Copy what can be copied; the rest, and what the sample found to be wrong, is left to the worker.

    The caller owns the sync, which is applied. `with_hashes`: the vectors count as those of their texts and
    are not encoded again; without, they are searched until the walk has encoded their rows. Killed anywhere
    it may be run again: rows that have something in the target already are passed over. `between` is called
    between the transactions, which are short.

    Raises DatabaseError, and SupersededError where another has taken the sync over.
    """
    taken = Taken()
    with translated("take over", f"vectors of {origin.where}"):
        now = epoch.take(connection, bound.name, bound.generation)
        if proof.disagreeing:
            with now.transaction(connection):  # before all else: a row with an entry is not taken over
                queue.append(connection, bound, list(proof.disagreeing))
        pages = KeysetPages(connection, bound, _SQL["keys"])
        reader, writer = Rows(connection, bound, origin, untouched=True), layout.writer(connection, bound)
        pace = Pace(is_guest=bound.sync.target.column is not None)
        while not pages.is_exhausted:
            began = time.monotonic()
            (fence,) = connection.execute(_SQL["fence"]).fetchone() or (0,)
            keys = [tuple(row) for row in pages.read(pace.rows)]
            rows = reader.read(keys, characters=0) if keys else []  # texts are hashed where they are
            fence = fence if with_hashes else _BEFORE_ALL
            outcomes = [
                _outcome(row, row.vector, fence, with_hash=with_hashes, is_normal=proof.is_normal)
                for row in rows
                if row.vector is not None
            ]
            if outcomes:
                with now.transaction(connection):
                    writer.write(outcomes)
            pace.took(len(keys), time.monotonic() - began)
            _note(taken, keys, rows)
            between(taken)
    return taken


def _outcome(row: Row, vector: Vector, fence: int, *, with_hash: bool, is_normal: bool) -> Outcome:
    length = np.linalg.norm(vector)
    if is_normal and abs(length - 1) > _ROUNDED:  # else what lies in the source's own column is not written
        vector = np.asarray(vector / length, dtype=np.float32)
    return Outcome(row.key, fence, Fate.STORE, vector, row.content_hash if with_hash else None)


def _note(taken: Taken, keys: list[Key], rows: list[Row]) -> None:
    taken.rows += len(keys)
    for row in rows:
        if row.refusal is None:
            taken.vectors += 1
        else:
            taken.refuse(row, row.refusal)
