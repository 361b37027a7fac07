"""What a search shows: a table, or a line per row where a key would be cut in it."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from freshvec.cli.status_view import fits
from freshvec.printable import in_a_line
from freshvec.target.search import Hit

_MOST_TEXT = 120
_LEAST_TEXT = 24  # columns; a narrower table is harder to read than lines


def show(console: Console, key_columns: Sequence[str], hits: Sequence[Hit]) -> None:
    """The table where a person looks at a terminal that has room for whole keys; elsewhere lines."""
    if fits(console, table(key_columns, hits, _LEAST_TEXT)):
        console.print(table(key_columns, hits, _MOST_TEXT))
        return
    for line in lines(hits):
        console.print(line, soft_wrap=True)


def lines(hits: Sequence[Hit]) -> Iterator[str]:
    """Similarity, key, and how the text begins."""
    for hit in hits:
        yield f"{hit.similarity:.3f}  {_key(hit)}  {beginning(hit.text, _MOST_TEXT)}".rstrip()


def table(key_columns: Sequence[str], hits: Sequence[Hit], most_text: int) -> Table:
    """The same, with at most so many characters of a text."""
    shown = Table()
    shown.add_column("similarity", no_wrap=True)
    shown.add_column(", ".join(key_columns), no_wrap=True)
    shown.add_column("text")
    for hit in hits:
        shown.add_row(f"{hit.similarity:.3f}", _key(hit), beginning(hit.text, most_text))
    return shown


def beginning(text: str, most: int) -> str:
    """How a text begins, in one line."""
    return " ".join(text.split())[:most]


def _key(hit: Hit) -> str:
    return ", ".join(map(in_a_line, hit.key))
