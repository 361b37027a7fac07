"""What is wrong with a setting, in words that say what to write instead."""

import re
from collections.abc import Iterable
from datetime import date, time
from pathlib import Path

from pydantic_core import ErrorDetails

from freshvec.errors import nearest

# What pydantic calls a value of the wrong shape, and what is wanted in its place.
_SHAPES = {
    "tuple_type": "a list",
    "model_type": "a table of settings",
    "string_type": "a text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "path_type": "a path",
}
_KINDS: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),
    (str, "a text"),
    (int, "a number"),
    (float, "a number with a fraction"),
    (list, "a list"),
    (date, "a date"),  # with or without a time of day
    (time, "a time of day"),
)
_EXAMPLES = {
    "string_type": '"…", in quotes',
    "bool_type": "true",
    "bool_parsing": "true",
    "int_type": "1, without quotes",
    "int_parsing": "1",
    "int_from_float": "1",
    "float_type": "1.0, without quotes",
    "float_parsing": "1.0",
    "path_type": '"/…", in quotes',
}


# What else pydantic finds, and what to say of it.
_LIMITS = {
    "greater_than_equal": "it must be {ge:g} or more",
    "greater_than": "it must be more than {gt:g}",
    "less_than_equal": "it must be {le} or less",
    "finite_number": "it must be a finite number",
    "too_short": "the list is empty; write one entry at least",
    "string_too_short": "it is empty; write something, or leave the key out",
}


def describe(detail: ErrorDetails, siblings: Iterable[str], variable: str | None = None) -> str:
    """One fault that pydantic found, "" where another one says it; `siblings` are the keys that are possible
    at its place. `variable` is the one that gave the value."""
    if variable:
        return _of_variable(detail, siblings, variable)
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
    if kind in _SHAPES:
        return f"{key}: {_shaped(str(detail['loc'][-1]), kind, given)}"
    if kind == "too_short" and given:
        return ""  # its entries are wrong, each by itself
    if kind in _LIMITS:
        said = f", but it says {shown}" if "short" not in kind else ""
        return f"{key}: {_LIMITS[kind].format(**context)}{said}"
    return f"{key}: {detail['msg'].lower()}, but it says {shown}"


def _of_variable(detail: ErrorDetails, siblings: Iterable[str], variable: str) -> str:
    """The same of a variable of the environment, which has no shape but text."""
    section, key = variable.rpartition(str(detail["loc"][-1]).upper())[0], f"{variable} (environment)"
    kind = detail["type"]
    if kind == "extra_forbidden":
        known = [section + one.upper() for one in siblings]
        return f"{key}: there is no such setting{nearest(variable, known, cutoff=0.85)}"
    if kind == "model_type":
        return f"{key}: it is a table; write a variable for each setting, with {variable}_ before it"
    if kind in _SHAPES:
        return f"{key}: it is {_SHAPES[kind]}; write {_EXAMPLES[kind].split(',')[0]}"
    said = describe(detail, siblings)
    return f"{key}: {said.partition(': ')[2]}"


def _shaped(key: str, kind: str, given: object) -> str:
    """What to write where a value has another shape than its key wants."""
    wanted = _SHAPES[kind]
    if key == "sync":
        return "each sync is a table of its own; write [[sync]], in double brackets, before its keys"
    if kind == "model_type" and key.isdecimal():
        return "a sync is a table; write [[sync]], in double brackets, and its keys below"
    if key.isdecimal():  # an entry of a list
        return f"it is {wanted}, not {_kind(given)}; write {_EXAMPLES[kind]}"
    if kind == "model_type":
        inline = 'target = { type = "halfvec" }' if key == "target" else f"[{key}] on a line of its own"
        return f"it is a table of settings, not {_kind(given)}; write {inline}"
    if kind == "tuple_type":
        return f'it is a list, not {_kind(given)}; write {key} = ["…"]'
    return f"it is {wanted}, not {_kind(given)}; write {key} = {_EXAMPLES[kind]}"


def _kind(given: object) -> str:
    """What a value of a TOML file is called, and the value where that shows more."""
    return next((name for kind, name in _KINDS if isinstance(given, kind)), "a table of settings")


def valid_device(value: str) -> str:
    """The name of a device. Raises ValueError."""
    if not re.fullmatch(r"auto|cpu|(cuda|tensorrt)(:\d+)?", value):
        raise ValueError(f"there is no device {value!r}; write auto, cpu, cuda, cuda:1 or tensorrt")
    return value


def at_home(folder: Path) -> Path:
    """A folder, `~` being the user's own. Raises ValueError where there is none."""
    try:
        return folder.expanduser()
    except RuntimeError:
        raise ValueError(f"this user has no home for '{folder}'; write the whole path") from None


def valid_address(value: str) -> str:
    """A host and a port. Raises ValueError."""
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{value!r} is not an address; write host:port, as in 127.0.0.1:8377")
    return value


def address_or_off(value: str) -> str:
    """The same, or that there is to be none."""
    return value if value == "off" else valid_address(value)
