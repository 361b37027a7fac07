"""Reading rows of the source: key, text and hash, by key."""

from freshvec.db import Connection, queries
from freshvec.records import Key, SourceRow
from freshvec.source.bound import BoundSync

_SQL = queries("source/rows")


class RowReader:
    """Reads rows of one sync's source on one connection."""

    def __init__(self, connection: Connection, bound: BoundSync) -> None:
        self._connection = connection
        self._bound = bound
        self._query = bound.compose(_SQL["read_rows"])

    def read(self, keys: list[Key], *, whole: bool = False) -> list[SourceRow]:
        """The source rows of `keys`; a key that is missing from the answer has no row any more.

        Texts come cut at `max_characters`, unless `whole` is asked for. The text of a row whose vector in the
        target is of this very text stays where it is.
        """
        params = self._bound.key_arrays(keys) | {
            "fingerprint": self._bound.model.fingerprint,
            "characters": None if whole else self._bound.max_characters,
        }
        return source_rows(self._connection.execute(self._query, params, binary=True).fetchall())


def source_rows(found: list[tuple[object, ...]]) -> list[SourceRow]:
    """Rows of `…key texts, hash, unchanged, text` as values."""
    return [
        SourceRow(row[:-3], text=row[-1], content_hash=row[-3], unchanged=row[-2])  # type: ignore[arg-type]
        for row in found
    ]
