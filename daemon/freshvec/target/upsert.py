"""Writing rows of the target: vectors as one binary array, one fenced upsert, and the counts kept beside
it."""

from collections.abc import Sequence

import numpy as np
from loguru import logger
from numpy.typing import NDArray
from psycopg import sql

from freshvec.arrays import NumberArray, VectorArray
from freshvec.db import Session, queries, quoted
from freshvec.records import Fate, Key, Outcome
from freshvec.source.bound import BoundSync
from freshvec.target.fill import Fill, can_fill
from freshvec.target.trust import Trust

_STATEMENTS = (
    "superseded",
    "upsert",
    "touch",
    "overtaken",
    "clear",
    "remove",
    "refused",
    "clear_tombstones",
    "raise_fence",
    "count",
    "count_of_member",
)


class TargetWriter:
    """Writes rows inside the caller's transaction."""

    statements = queries("target/upsert")

    def __init__(self, connection: Session, bound: BoundSync) -> None:
        self.connection = connection
        self._bound = bound
        self._model = {"fingerprint": bound.model.fingerprint}
        self._is_plain = bound.sync.target.type == "real[]"
        parts = self._held_parts()
        self.queries = {name: bound.compose(self.statements[name], **parts) for name in _STATEMENTS}
        self.member: int | None = None  # that counts for itself, since all would wait for the sync's row
        self._fill = Fill(bound) if can_fill(bound) else None
        self._trust = Trust(bound)
        self._highest = 0  # of the fences that refused a write
        self.held_back: set[Key] = set()  # of the last write, since somebody else has the source's row

    def write(self, outcomes: Sequence[Outcome]) -> list[Key]:
        """Store, touch, clear and remove rows. Of several outcomes of one key the one with the highest fence
        counts.

        A row can be deleted while its vector is under way. Writers look whether the source row exists; who
        removes must be alone (`removes`), so that one of the two always sees the other.

        Gives the keys of rows to be read again. Those found unchanged, while an older reading was written
        meanwhile: what they were is so no more. And those that the target holds a later reading of another
        text of: a reading of our own has answered the row, and once more costs a hash; but one that a restore
        brought back must not stay.
        """
        self._begin()
        by_fate: dict[Fate, list[Outcome]] = {fate: [] for fate in Fate}
        for outcome in self._latest(outcomes):
            by_fate[outcome.fate].append(outcome)
        counts, again = self._store(by_fate[Fate.STORE])
        again += self._touch(by_fate[Fate.TOUCH])
        for fate, name in ((Fate.CLEAR, "clear"), (Fate.REMOVE, "remove")):
            if by_fate[fate]:
                changed, refused = self._delete(by_fate[fate], name)
                counts = {what: counts[what] + changed[what] for what in counts}
                again += refused
        self._raise_fence(counts["refused"])
        self._count(counts)
        return again

    def _begin(self) -> None:
        """What comes first in a transaction that writes."""
        self._trust.hold(self.connection)

    def fill(self, outcomes: Sequence[Outcome]) -> None:
        """Store vectors of rows that the target has nothing of. Raises UniqueViolation where it has."""
        assert self._fill is not None
        self._begin()
        self._fill.write(self.connection, outcomes)
        self._count({"embedded": len(outcomes), "failed": 0, "refused": 0})

    @property
    def can_fill(self) -> bool:
        return self._fill is not None

    def _count(self, counts: dict[str, int]) -> None:
        if any(counts.values()):
            whose = "count" if self.member is None else "count_of_member"
            self.connection.execute(self.queries[whose], counts | {"pid": self.member})

    def _latest(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """One outcome per row, in the order of keys: two writers cannot wait for each other."""
        latest: dict[Key, Outcome] = {}
        for outcome in outcomes:
            if outcome.key not in latest or latest[outcome.key].fence < outcome.fence:
                latest[outcome.key] = outcome
        kept = [latest[key] for key in sorted(latest)]
        if not self._bound.has_spellings or len(kept) < 2:
            return kept
        # One key may be spelt in several ways, and one statement cannot write a row twice.
        superseded = {
            place for (place,) in self.connection.execute(self.queries["superseded"], self._params(kept))
        }
        return [outcome for place, outcome in enumerate(kept, 1) if place not in superseded]

    def clear_tombstones(self, outcomes: Sequence[Outcome]) -> None:
        """Delete rows without a text that this pipeline wrote, unless something else was written since."""
        self._trust.hold(self.connection)
        self.connection.execute(self.queries["clear_tombstones"], self._params(list(outcomes)))

    def _store(self, outcomes: list[Outcome]) -> tuple[dict[str, int], list[Key]]:
        """Rows embedded and failed, more or fewer, writes refused by fences of another time; and keys to read
        again."""
        if not outcomes:
            return {"embedded": 0, "failed": 0, "refused": 0}, []
        outcomes, params = self._given(outcomes)
        row = self.connection.execute(self.queries["upsert"], params).fetchone()
        assert row is not None
        embedded, failed, places, highest, unknown = row
        self._highest = max(self._highest, highest or 0)
        counts = {"embedded": embedded, "failed": failed, "refused": unknown}
        return counts, [outcomes[place - 1].key for place in places or ()]

    def _given(self, outcomes: list[Outcome]) -> tuple[list[Outcome], dict[str, object]]:
        """The rows in the order in which they are given, and the parameters of the upsert."""
        outcomes, given = self._held(outcomes)
        errors = [outcome.error for outcome in outcomes]
        given["errors"] = errors if any(errors) else []
        return outcomes, self._params(outcomes) | self._hashes(outcomes) | given | self._model

    def _held(self, outcomes: list[Outcome]) -> tuple[list[Outcome], dict[str, object]]:
        """The rows in the order of what they hold, and that: where an array ends, unnest gives NULL."""
        outcomes = sorted(outcomes, key=lambda outcome: outcome.embedding is None)
        vectors = [outcome.embedding for outcome in outcomes if outcome.embedding is not None]
        return outcomes, {"vectors": self.array(vectors)}

    def _delete(self, outcomes: list[Outcome], name: str) -> tuple[dict[str, int], list[Key]]:
        """The same for rows that have no text, or are gone."""
        params = self._params(outcomes)
        row = self.connection.execute(self.queries[name], params | self._model).fetchone() or (0, 0)
        found = self.connection.execute(self.queries["refused"], params).fetchone() or (None, 0, 0)
        places, highest, unknown = found
        self._highest = max(self._highest, highest or 0)
        counts = {"embedded": row[0], "failed": row[1], "refused": unknown}
        return counts, [outcomes[place - 1].key for place in places or ()]

    def _raise_fence(self, refused: int) -> None:
        """After all writes of a transaction, so that each was compared with what the sequence had given
        before."""
        if refused:
            message = "sync {}: {} writes met fences of another time (a restore?); their rows are read again"
            logger.warning(message, self._bound.name, refused)
            self.connection.execute(self.queries["raise_fence"], {"above": self._highest})

    def _touch(self, outcomes: list[Outcome]) -> list[Key]:
        """Raise the fence of rows found unchanged; gives the keys of those that are unchanged no more."""
        if not outcomes:
            return []
        params = self._params(outcomes)
        self.connection.execute(self.queries["touch"], params | self._hashes(outcomes) | self._model)
        places = self.connection.execute(self.queries["overtaken"], params)
        return [outcomes[place - 1].key for (place,) in places]

    def array(self, vectors: list[NDArray[np.float32]]) -> NumberArray | VectorArray:
        """Vectors as a parameter, cut where that is declared."""
        vectors = [self._bound.model.fit(vector) for vector in vectors]
        if not self._is_plain:
            return VectorArray(vectors, half=self._bound.sync.target.type == "halfvec")
        return NumberArray(np.concatenate(vectors) if vectors else np.empty(0, np.float32))

    def _held_parts(self) -> dict[str, sql.Composable]:
        """How what rows hold comes into the upsert."""
        return self.vector_parts()

    def vector_parts(self) -> dict[str, sql.Composable]:
        """How vectors come into a query: as an array of vectors, or of numbers that rows are cut from."""
        bound = self._bound
        if self._is_plain:
            embedding: sql.Composable = bound.compose(self.statements["slice"])
            return {"vectors": sql.SQL(""), "vector": sql.SQL(""), "embedding": embedding}
        element = quoted(bound.vector_schema, bound.sync.target.type)
        vectors = bound.compose(self.statements["vectors"], element=element)
        return {"vectors": vectors, "vector": sql.SQL(", embedding"), "embedding": sql.SQL("k.embedding")}

    def _params(self, outcomes: list[Outcome]) -> dict[str, object]:
        keys = self._bound.key_arrays([outcome.key for outcome in outcomes])
        return {
            **keys,
            "fences": NumberArray(np.array([outcome.fence for outcome in outcomes], dtype=np.int64)),
        }

    def _hashes(self, outcomes: list[Outcome]) -> dict[str, object]:
        """All hashes as one value, and the place of each row's in it, 0 for a row that has none."""
        hashes = [outcome.content_hash for outcome in outcomes]
        return {
            "hashes": b"".join(content_hash for content_hash in hashes if content_hash is not None),
            "hash_slots": slots([content_hash is not None for content_hash in hashes]),
        }


def slots(has: list[bool]) -> NumberArray:
    """For each row the place, from 1, of what it has among what all have; 0 where it has none."""
    return NumberArray((np.cumsum(has) * np.array(has)).astype(np.int32))


def removes(outcomes: Sequence[Outcome]) -> bool:
    """Whether writing these must be done alone."""
    return any(outcome.fate is Fate.REMOVE for outcome in outcomes)
