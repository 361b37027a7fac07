"""Texts of others, as a terminal may show them: its control characters would colour, move or rename it, and
those of direction let what follows read backwards (Boucher and Anderson, Trojan Source, 2021)."""

_DIRECTIONS = {code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_WRITTEN = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | _DIRECTIONS
_BREAKS = {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t", 0x2028: "\\u2028", 0x2029: "\\u2029"}
_IN_LINES = {code: text for code, text in _WRITTEN.items() if chr(code) not in "\n\t"}
_IN_A_LINE = _WRITTEN | _BREAKS


def in_lines(text: str) -> str:
    """`text` with its lines and tabs; every other control character is written as Python writes it."""
    return text.translate(_IN_LINES)


def in_a_line(text: str) -> str:
    """The same of what must stay within a line, as a key."""
    return text.translate(_IN_A_LINE)
