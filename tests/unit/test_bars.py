"""Bars of progress in any number of columns: names whole, nothing cut, notes as there is room."""

import io

import pytest
from rich.console import Console

from freshvec.cli.bars import Bar, drawn

NOTES = ("45 rows/s", "ETA 33 s", "62 cut at 256 tokens", "1,024 MiB", "batches of 4,096 tokens")
LONG = "a_name_that_is_as_long_as_a_name_may_be1"


def shown(width: int, *bars: Bar, height: int = 24) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(drawn(bars, width, height))
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 61, 80, 100, 120, 200])
@pytest.mark.parametrize("name", ["docs", LONG])
def test_nothing_is_cut_and_the_bar_stays(width: int, name: str) -> None:
    bars = (Bar(name, 123_456, 1_234_567, NOTES), Bar("docs", 1, 2, NOTES))
    lines = shown(width, *bars)
    assert len(lines) == len(bars)
    for line, bar in zip(lines, bars, strict=True):
        assert len(line.rstrip()) < width
        assert line.startswith(f"{bar.name} ")
        assert bar.percent in line
        assert set(line) & set("━╸╺")
        assert "…" not in line


def test_more_room_shows_more() -> None:
    bar = Bar("docs", 123_456, 1_234_567, NOTES)
    lengths = [len(shown(width, bar)[0].split("%")[1]) for width in (60, 80, 100, 120)]
    assert lengths == sorted(lengths)
    assert "ETA 33 s" in shown(80, bar)[0]
    assert NOTES[-1] in shown(120, bar)[0]


def test_fifty_fit_a_terminal() -> None:
    lines = shown(80, *(Bar(f"sync{number}", 1, 4) for number in range(50)), height=24)
    assert len(lines) == 12
    assert lines[-1].startswith("39 more ")
    assert "39/156" in lines[-1]


def test_nothing_to_do_is_no_share() -> None:
    assert "0%" in shown(80, Bar("docs", 0, 0))[0]
