"""The console of what is shown: texts come from rows, and mean nothing but themselves."""

from typing import Any

from rich.console import Console
from rich.text import Text

from freshvec.printable import in_lines


class PlainConsole(Console):
    """Prints every text as it is, in a table's cells too: no `[markup]`, no `:emoji:`, no control characters.

    What is meant as markup is printed with `markup=True`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Whatever is printed and is no renderable of rich comes through here."""
        return super().render_str(in_lines(text), **options)
