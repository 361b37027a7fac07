"""The texts a benchmark encodes: rows of a sync, lines of a file, or docstrings of the standard library."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freshvec.config import Settings, Sync
from freshvec.db import connect
from freshvec.errors import FreshvecError
from freshvec.records import Model
from freshvec.source.bind import bind
from freshvec.source.sample import sample
from freshvec.stdlib_texts import docstrings

_JSON_LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True)
class Texts:
    """What is encoded, and where it comes from."""

    origin: str
    rows: list[str]


def of_sync(settings: Settings, sync: Sync, model: Model, count: int) -> Texts:
    """At most `count` texts of the sync, as the daemon makes them, spread evenly over its table.

    Raises DatabaseError, SchemaError, and FreshvecError when no row has a text.
    """
    with connect(settings.database.url, "bench") as connection:
        rows = sample(connection, bind(connection, sync, model), count)
    return Texts(
        f"rows of sync {sync.name}",
        _some(rows, f"sync {sync.name!r}", "Fill its table, or name a file with --texts."),
    )


def of_file(path: Path, count: int) -> Texts:
    """At most `count` texts spread evenly over a file: one per line, or JSON lines with strings or `text`.

    Raises FreshvecError for a file that cannot be read or holds no text, and for a line that holds none.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise FreshvecError("read", f"texts from {path}", str(error), "Give a text file in UTF-8.") from error
    written = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if path.suffix in _JSON_LINES:
        rows = [_from_json(path, number, line) for number, line in written]
    else:
        rows = [line for _, line in written]
    return Texts(f"lines of {path.name}", spread(_some(rows, str(path), "Give one text per line."), count))


def of_standard_library(count: int) -> Texts:
    """At most `count` docstrings of Python's standard library, evenly chosen."""
    return Texts("docstrings of the standard library", spread([text for _, text in docstrings()], count))


def spread(rows: list[str], count: int) -> list[str]:
    """At most `count` of the rows, evenly chosen and in order."""
    return [rows[i * len(rows) // count] for i in range(count)] if len(rows) > count else rows


def _some(rows: list[str], subject: str, remedy: str) -> list[str]:
    if not rows:
        raise FreshvecError("read", f"texts from {subject}", "there is none", remedy)
    return rows


def _from_json(path: Path, number: int, line: str) -> str:
    try:
        content: Any = json.loads(line)
    except json.JSONDecodeError:
        content = None
    text = content.get("text") if isinstance(content, dict) else content
    if not isinstance(text, str):
        remedy = 'Write a string, or an object with "text", on every line.'
        raise FreshvecError("read", f"line {number} of {path}", "it holds no text", remedy)
    return text
