"""Bars of progress that fit a terminal: the name whole, a bar, and as much beside it as there is room for."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_LEAST_BAR = 10  # columns
_MOST_BAR = 40


@dataclass(frozen=True)
class Bar:
    """One bar. `notes` are left out from the end where there is no room for all."""

    name: str
    done: int
    total: int
    notes: Sequence[str] = ()

    @property
    def percent(self) -> str:
        return f"{100 * self.done // self.total if self.total else 0}%"


def drawn(bars: Sequence[Bar], width: int, height: int) -> Table:
    """The bars in so many columns and lines; what does not fit below each other is put together."""
    most = max(1, height // 2)
    if len(bars) > most:
        others = bars[most - 1 :]
        rest = Bar(f"{len(others)} more", sum(bar.done for bar in others), sum(bar.total for bar in others))
        bars = [*bars[: most - 1], rest]
    names = max(len(bar.name) for bar in bars)
    room = width - names - _LEAST_BAR - 3  # two gaps, and the last column, in which a terminal may wrap
    texts = [_fitted(bar, room) for bar in bars]
    bar_width = min(_MOST_BAR, width - names - 3 - max(map(len, texts)))
    shown = Table.grid(padding=(0, 1))
    for bar, text in zip(bars, texts, strict=True):
        line = ProgressBar(total=max(bar.total, 1), completed=bar.done, width=bar_width)
        shown.add_row(Text(bar.name, no_wrap=True), line, Text(text, no_wrap=True))
    return shown


def _fitted(bar: Bar, room: int) -> str:
    """As much as fits: the share, the counts, and what is most important of the rest."""
    text = bar.percent
    for part in (f"{bar.done:,}/{bar.total:,}", *bar.notes):
        if len(text) + 2 + len(part) > room:
            break
        text += f", {part}" if bar.percent != text else f"  {part}"
    return text
