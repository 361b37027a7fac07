"""What the tests of adoption share: the application's vectors, and adoption as the command does it."""

from dataclasses import dataclass

from freshvec.adoption.origin import FOUND, Origin, find
from freshvec.adoption.sample import Proof, prove
from freshvec.adoption.takeover import Taken, take_over
from freshvec.config import Settings
from freshvec.db import connect
from freshvec.encoding.loading import Models
from freshvec.records import Model
from freshvec.schema import migrations
from freshvec.schema.apply import apply
from freshvec.source.bound import BoundSync
from tests.support import MODEL, Connection, NullEncoder, bound_sync


def literal(vector: object) -> str:
    """A vector as pgvector reads it."""
    return "[" + ",".join(f"{value:.8g}" for value in vector) + "]"  # type: ignore[attr-defined]


def embed(
    connection: Connection, table: str = "docs", column: str = "embedding", rows: list[int] | None = None
) -> None:
    """Every row's vector into a column of its own table, as a script of the application's does it; `rows`:
    of these alone."""
    wanted = "" if rows is None else f" AND id = ANY ('{{{','.join(map(str, rows))}}}')"
    query = f"SELECT id, body FROM {table} WHERE body IS NOT NULL{wanted}"
    found = connection.execute(query.encode()).fetchall()
    judge = NullEncoder()
    vectors = judge.encode(judge.tokenize([body for _, body in found]))
    given = [(literal(vector), key) for (key, _), vector in zip(found, vectors, strict=True)]
    with connection.cursor() as cursor:
        cursor.executemany(f"UPDATE {table} SET {column} = %s WHERE id = %s".encode(), given)


@dataclass
class Adoption:
    """Adoption of one sync's vectors, in the command's steps."""

    settings: Settings
    encoder: NullEncoder

    def model(self) -> Model:
        return Model(MODEL, self.encoder.dimension, self.encoder.max_tokens, self.encoder.fingerprint)

    def find(self, where: str = FOUND) -> Origin:
        with connect(self.settings.database.url, "test") as connection:
            return find(connection, self._bound(connection), where)

    def prove(self, where: str = FOUND, rows: int = 250) -> tuple[Origin, Proof]:
        dispatcher = Models(self.settings).dispatcher(MODEL, self.encoder)
        try:
            with connect(self.settings.database.url, "test") as connection:
                bound = self._bound(connection)
                origin = find(connection, bound, where)
                return origin, prove(connection, bound, origin, dispatcher, rows)
        finally:
            dispatcher.stop(timeout=2.0)

    def apply(self) -> BoundSync:
        with connect(self.settings.database.url, "test") as connection:
            migrations.migrate(connection)
            bound, _ = apply(connection, self.settings.sync[0], self.model())
            return bound

    def run(self, where: str = FOUND, *, with_hashes: bool | None = None, rows: int = 250) -> Taken:
        """All of it; hashes are written where the sample says so, or as it is asked for."""
        origin, proof = self.prove(where, rows)
        bound = self.apply()
        is_whole = proof.is_proven if with_hashes is None else with_hashes
        with connect(self.settings.database.url, "test") as connection:
            return take_over(connection, bound, origin, proof, with_hashes=is_whole)

    def _bound(self, connection: Connection) -> BoundSync:
        return bound_sync(connection, self.settings, self.encoder)
