"""Reading rows of the source: key, text and hash, by key."""

from collections.abc import Sequence
from typing import Any

import psycopg

from freshvec.db import Session, queries
from freshvec.records import Key, SourceRow
from freshvec.source.bound import BoundSync

_SQL = queries("source/rows")
# Classes of errors that tell of the session, the server or its objects. Any other is a row's own: of its
# data, a domain, a limit as for how deep JSON may be nested, or what a function of the user's raises, which
# may have a code of its own.
_OF_THE_SESSION = ("08", "0L", "0P", "25", "26", "28", "2B", "2D", "34", "3B", "40", "55")
_OF_THE_SERVER = ("3D", "3F", "42", "53", "57", "58", "72", "F0", "HV", "XX")
# Characters of text that one read may bring, up to the row that goes beyond: what bounds the memory, since a
# page of 2,048 rows for a model that reads 8,192 tokens could else hold gigabytes.
MOST_CHARACTERS = 16 * 2**20
_FEWEST_KEYS = 16  # per read, however long their texts


class RowReader:
    """Reads rows of one sync's source on one connection."""

    def __init__(self, connection: Session, bound: BoundSync) -> None:
        self._connection = connection
        self._bound = bound
        self._query = bound.compose(_SQL["read_rows"])
        self._most_keys: int | None = None  # per read, where texts are long

    def read(self, keys: Sequence[Key], *, whole: bool = False) -> list[SourceRow | None]:
        """The source row of each key, None where there is none any more.

        Where the texts are too long to be read together, only those of the first keys come: the answer is
        shorter than `keys`, though never empty. Texts come cut at `max_characters`, unless `whole` is asked
        for. The text of a row whose vector in the target is of this very text stays where it is. A row whose
        text raises an error has that error; its neighbours are found by halving.
        """
        keys = keys[: self._most_keys]
        rows = self._halved(keys, whole)
        self._adapt(rows, len(keys))
        return rows

    def _adapt(self, rows: list[SourceRow | None], asked: int) -> None:
        """Ask for about as many as came where texts are long: the server renders the others for nothing."""
        if not fits(rows, asked):
            self._most_keys = max(_FEWEST_KEYS, 2 * len(rows))
        elif self._most_keys is not None and asked == self._most_keys:
            self._most_keys *= 2

    def _halved(self, keys: Sequence[Key], whole: bool) -> list[SourceRow | None]:
        """One read; where a row's text raises an error, one of each half."""
        try:
            found = self._read(keys, whole)
        except psycopg.Error as error:
            if not is_of_the_row(error):
                raise
            if len(keys) == 1:
                return [_failed(keys[0], error)]
            middle = len(keys) // 2
            first = self._halved(keys[:middle], whole)
            return first + self._halved(keys[middle:], whole) if fits(first, middle) else first
        rows: list[SourceRow | None] = [None] * len(keys)
        for row in found:
            rows[row[-1] - 1] = source_row(row[:-1])
        return rows if fits(rows, len(keys)) else rows[: found[-1][-1]]

    def _read(self, keys: Sequence[Key], whole: bool) -> list[tuple[Any, ...]]:
        params = self._bound.key_arrays(list(keys)) | {
            "fingerprint": self._bound.model.fingerprint,
            "characters": None if whole else self._bound.max_characters,
            "most_characters": MOST_CHARACTERS,
        }
        return self._connection.execute(self._query, params, binary=True).fetchall()


def fits(rows: Sequence[SourceRow | None], limit: int) -> bool:
    """Whether all of a read's rows came: not fewer than `limit` because their texts are too long."""
    return len(rows) == limit and sum(len(row.text or "") for row in rows if row) < MOST_CHARACTERS


def source_row(row: tuple[Any, ...]) -> SourceRow:
    """Columns `…key texts, hash, unchanged, text` as a value."""
    return SourceRow(row[:-3], text=row[-1], content_hash=row[-3], unchanged=row[-2])


def is_of_the_row(error: psycopg.Error) -> bool:
    """Whether a row's own values caused the error, so that its neighbours can be read.

    So do a value that is damaged where it lies, and one that is longer than Postgres's memory gives at once,
    which has no code of its own but a place in its source.
    """
    state = error.sqlstate
    if state == "XX001" or (state == "XX000" and error.diag.source_file == "mcxt.c"):
        return True
    return state is not None and not state.startswith(_OF_THE_SESSION + _OF_THE_SERVER)


def without_last_word(text: str, limit: int) -> str:
    """A text that was cut at `limit` characters, without the word that the cut may have gone through.

    Half a word has other tokens than the whole one. What is left has the tokens that the whole text begins
    with; of one endless word that is nothing. Only a space or a new line ends a word in every tokenizer.
    """
    return text if len(text) < limit else text[: max(text.rfind(" "), text.rfind("\n"), 0)]


def _failed(key: Key, error: psycopg.Error) -> SourceRow:
    message = error.diag.message_primary or str(error)
    return SourceRow(
        key, text=None, content_hash=None, unchanged=False, error=f"its text cannot be read: {message}"
    )
