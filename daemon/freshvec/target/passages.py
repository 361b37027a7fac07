"""Writing rows whose texts are cut into passages: a row of the target, and one per passage with its vector.

A passage that a row has already is known by its hash: its vector stays and is neither encoded nor written
again.
"""

from collections.abc import Sequence

import numpy as np
from psycopg import sql

from freshvec.arrays import NumberArray
from freshvec.db import Session, queries
from freshvec.records import Key, Outcome
from freshvec.source.bound import BoundSync
from freshvec.target.upsert import TargetWriter, slots

_SQL = queries("target/passages")


def kept(connection: Session, bound: BoundSync, keys: Sequence[Key]) -> list[set[bytes]]:
    """Of each key the hashes of the passages whose vectors the target has."""
    found: list[set[bytes]] = [set() for _ in keys]
    given = bound.key_arrays(list(keys)) | {"fingerprint": bound.model.fingerprint}
    for place, content_hash in connection.execute(bound.compose(_SQL["kept"]), given, binary=True):
        found[place - 1].add(content_hash)
    return found


class PassageWriter(TargetWriter):
    """Writes rows and their passages inside the caller's transaction."""

    def __init__(self, connection: Session, bound: BoundSync) -> None:
        super().__init__(connection, bound)
        self._lacking = bound.compose(_SQL["lacking"])
        self._replace = bound.compose(_SQL["replace"], **self._given_vectors())

    def _given_vectors(self) -> dict[str, sql.Composable]:
        parts = self.vector_parts()
        return {"given_vectors": parts["vectors"], "vector": parts["vector"]}

    def _store(self, outcomes: list[Outcome]) -> tuple[dict[str, int], list[Key]]:
        """What `TargetWriter` does, then the passages of what was written.

        A row that relies on a vector which is not there any more is read again.
        """
        lacking = self._places_lacking(outcomes)
        whole = [outcome for place, outcome in enumerate(outcomes) if place not in lacking]
        counts, again = super()._store(whole)
        # A page from a replica goes under a fence that another reading may have, too: by the fence alone,
        # a row that was refused looks like one that was written.
        refused = set(again)
        if admitted := [outcome for outcome in whole if outcome.key not in refused]:
            self._write_passages(admitted)
        return counts, again + [outcomes[place].key for place in sorted(lacking)]

    def _places_lacking(self, outcomes: list[Outcome]) -> set[int]:
        waiting = [
            (place, passage.content_hash)
            for place, outcome in enumerate(outcomes, 1)
            for passage in outcome.passages
            if passage.embedding is None
        ]
        if not waiting:
            return set()
        given = {
            "places": _ints([place for place, _ in waiting]),
            "hash_slots": slots([True] * len(waiting)),
            "hashes": b"".join(content_hash for _, content_hash in waiting),
        }
        found = self.connection.execute(self._lacking, self._params(outcomes) | given | self._model)
        return {place - 1 for (place,) in found}

    def _write_passages(self, outcomes: list[Outcome]) -> None:
        # Passages without a vector are last: where an array ends, unnest gives NULL.
        passages = [(place, one) for place, outcome in enumerate(outcomes, 1) for one in outcome.passages]
        passages.sort(key=lambda each: each[1].embedding is None)
        given = {
            "places": _ints([place for place, _ in passages]),
            "begins": _ints([passage.begin for _, passage in passages]),
            "ends": _ints([passage.end for _, passage in passages]),
            "hash_slots": slots([True] * len(passages)),
            "hashes": b"".join(passage.content_hash for _, passage in passages),
            "vectors": self.array([one.embedding for _, one in passages if one.embedding is not None]),
        }
        self.connection.execute(self._replace, self._params(outcomes) | given)

    def _held_parts(self) -> dict[str, sql.Composable]:
        """A row holds the number of its passages."""
        return {
            "vectors": sql.SQL(", %(passages)s::int[]"),
            "vector": sql.SQL(", passages"),
            "embedding": sql.SQL("k.passages"),
        }

    def _held(self, outcomes: list[Outcome]) -> tuple[list[Outcome], dict[str, object]]:
        outcomes = sorted(outcomes, key=lambda outcome: not outcome.passages)
        counts = [len(outcome.passages) for outcome in outcomes if outcome.passages]
        return outcomes, {"passages": _ints(counts)}


def _ints(numbers: Sequence[int]) -> NumberArray:
    return NumberArray(np.array(numbers, dtype=np.int32))
