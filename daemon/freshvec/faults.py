"""What is wrong with a setting, in words that say what to write instead."""

import difflib
from collections.abc import Iterable

from pydantic_core import ErrorDetails


def describe(detail: ErrorDetails, siblings: Iterable[str]) -> str:
    """One fault that pydantic found; `siblings` are the keys that are possible at its place."""
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"]).lstrip(".")
    kind, given = detail["type"], detail["input"]
    context = detail.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{key}: there is no such key{nearest(str(detail['loc'][-1]), siblings)}"
    if kind == "missing":
        return f'{key}: it is missing; add {detail["loc"][-1]} = "…"'
    if kind == "literal_error":
        return f"{key}: {given!r} is not possible; write one of {context['expected']}"
    if kind == "string_pattern_mismatch":
        allowed = "lower-case letters, digits and _ (at most 40), a letter first"
        return f"{key}: {given!r} is not a name; write {allowed}"
    if kind == "value_error":
        return f"{key}: {context['error']}" if key else str(context["error"])
    shown = "***" if key.startswith("database") else repr(given)
    return f"{key}: {detail['msg'].lower()}, but it says {shown}"


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, else all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else f"; possible are {', '.join(known)}"
