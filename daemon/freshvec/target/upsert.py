"""Writing rows of the target: COPY BINARY into a staging table, then one fenced upsert."""

from collections.abc import Sequence

from psycopg import sql

from freshvec.db import LOCK_CLASS, Connection, queries, quoted
from freshvec.records import Fate, Key, Outcome
from freshvec.source.bound import BoundSync
from freshvec.target.binary import COPY_HEADER, COPY_TRAILER, copy_bigint, copy_field, copy_row, pack

_STATEMENTS = ("copy", "lock_shared", "lock_exclusive", "upsert", "touch", "read_again", "remove")


class TargetWriter:
    """Writes rows inside the caller's transaction. Holds a temporary table, so it belongs to one connection."""

    statements = queries("target/upsert")

    def __init__(self, connection: Connection, bound: BoundSync) -> None:
        self.connection = connection
        self._bound = bound
        self._model = {"fingerprint": bound.model.fingerprint}
        self._element = bound.sync.target.type
        names = {
            "staging": quoted("pg_temp", f"freshvec_staging_{bound.name}"),
            "lock": sql.Literal(LOCK_CLASS),
        }
        self._queries = {name: bound.compose(self.statements[name], **names) for name in _STATEMENTS}
        connection.execute(bound.compose(self.statements["staging"], **names), ())

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Store, touch and remove rows. Of several outcomes of one key the one with the highest fence counts."""
        latest: dict[Key, Outcome] = {}
        for outcome in outcomes:
            if outcome.key not in latest or latest[outcome.key].fence < outcome.fence:
                latest[outcome.key] = outcome
        by_fate: dict[Fate, list[Outcome]] = {fate: [] for fate in Fate}
        for outcome in latest.values():
            by_fate[outcome.fate].append(outcome)
        execute = self.connection.execute
        # A row can be deleted while its vector is under way. Writers look whether the source row exists;
        # a removal waits until no writer is under way, so one of the two always sees the other.
        execute(self._queries["lock_exclusive" if by_fate[Fate.REMOVE] else "lock_shared"])
        if by_fate[Fate.STORE]:
            # The same order everywhere, so that two workers cannot wait for each other.
            self._copy(sorted(by_fate[Fate.STORE], key=lambda outcome: outcome.key))
            execute(self._queries["upsert"], self._model)
        if by_fate[Fate.TOUCH]:
            params = self._params(by_fate[Fate.TOUCH])
            hashes = [outcome.content_hash for outcome in by_fate[Fate.TOUCH]]
            execute(self._queries["touch"], params | {"hashes": hashes, **self._model})
            execute(self._queries["read_again"], params)
        if by_fate[Fate.REMOVE]:
            execute(self._queries["remove"], self._params(by_fate[Fate.REMOVE]))

    def _params(self, outcomes: list[Outcome]) -> dict[str, object]:
        keys = self._bound.key_arrays([outcome.key for outcome in outcomes])
        return {**keys, "fences": [outcome.fence for outcome in outcomes]}

    def _copy(self, outcomes: list[Outcome]) -> None:
        with self.connection.cursor().copy(self._queries["copy"]) as copy:
            copy.write(COPY_HEADER + b"".join(self._rows(outcomes)) + COPY_TRAILER)

    def _rows(self, outcomes: list[Outcome]) -> list[bytes]:
        """The staging table's rows: key texts, embedding, hash, fence, error."""
        vectors = iter(pack([o.embedding for o in outcomes if o.embedding is not None], self._element))
        rows = []
        for outcome in outcomes:
            keys = (copy_field(part.encode()) for part in outcome.key)
            vector = copy_field(None) if outcome.embedding is None else next(vectors)
            error = None if outcome.error is None else outcome.error.encode()
            fence = copy_bigint(outcome.fence)
            rows.append(copy_row((*keys, vector, copy_field(outcome.content_hash), fence, copy_field(error))))
        return rows
