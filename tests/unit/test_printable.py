"""What comes from rows, as commands show it: whole, as it is, and without power over the terminal."""

import io
import re
from pathlib import Path

import pytest
from rich.table import Table

from freshvec.cli import hits_view, status_view
from freshvec.cli.console import PlainConsole
from freshvec.printable import in_a_line, in_lines
from freshvec.target.search import Hit
from tests.support import REPOSITORY

KEY = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
TEXT = "an [/INST] of [citation needed] and [red] :smile: \x1b]0;title\x07 \x9b31m"
WRITTEN = "an [/INST] of [citation needed] and [red] :smile: \\x1b]0;title\\x07 \\x9b31m"


def console(width: int, *, is_terminal: bool) -> tuple[PlainConsole, io.StringIO]:
    out = io.StringIO()
    return PlainConsole(file=out, width=width, force_terminal=is_terminal, color_system=None), out


def test_control_characters_are_written_and_lines_kept() -> None:
    assert in_lines("a\x1b[1m\n\tb\r\x7f\x85é") == "a\\x1b[1m\n\tb\\x0d\\x7f\\x85é"
    assert in_lines("\u202eevil\u2066 שלום\u200f") == "\\u202eevil\\u2066 שלום\u200f"
    assert in_a_line("a\nb\t\u2028") == "a\\nb\\t\\u2028"


@pytest.mark.parametrize(
    ("width", "is_terminal"), [(20, True), (60, True), (80, True), (200, True), (20, False), (80, False)]
)
def test_a_hit_is_shown_with_its_whole_key_and_its_text_as_it_is(width: int, is_terminal: bool) -> None:
    plain, out = console(width, is_terminal=is_terminal)
    hits_view.show(plain, ("id", "lang"), [Hit((KEY, "e\nn"), 0.8125, TEXT)])
    shown = out.getvalue()
    assert f"{KEY}, e\\nn" in shown
    assert "0.812" in shown
    assert "\x1b" not in shown
    assert "\x9b" not in shown
    assert "…" not in shown
    words = re.sub(r"[│\s]+", " ", shown)
    assert is_terminal or WRITTEN in words
    assert width < 200 or WRITTEN in words


def test_a_table_s_cells_are_no_markup() -> None:
    plain, out = console(120, is_terminal=True)
    table = Table("a [/b]")
    table.add_row(TEXT)
    plain.print(table)
    assert WRITTEN in out.getvalue()
    assert "a [/b]" in out.getvalue()


def test_the_key_of_a_row_that_failed_stays_in_its_line() -> None:
    rows = [{"key": {"id": "1\nother: fine"}, "error": "too long"}]
    assert list(status_view.failed({"docs": rows}))[1] == "  1\\nother: fine: too long"


def test_whatever_commands_print_goes_through_one_function() -> None:
    """`say`; but what is SQL for psql is printed exactly, and a version is our own."""
    folder = REPOSITORY / "daemon/freshvec/cli"
    raw = [f"{file.name}: {line.strip()}" for file in folder.glob("*.py") for line in _raw(file)]
    assert sorted(line.partition(":")[0] for line in raw) == ["app.py", "app.py", "sync_commands.py"], raw


def _raw(file: Path) -> list[str]:
    return [line for line in file.read_text(encoding="utf-8").splitlines() if "typer.echo" in line]
