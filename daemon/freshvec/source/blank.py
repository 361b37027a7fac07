"""Which texts show nothing: blanks, line ends, controls, and the characters of Unicode that have no width or
no ink.

A model gives them all the vector of the empty text, and that outranks real rows.
"""

from functools import cache

from psycopg import sql

# Unicode's spaces, controls and default-ignorable characters, first and last of each run. A list of our own,
# since Python's would change with its version, and with it what counts as a text.
_RUNS = (
    "0001-0020 007F-00A0 00AD-00AD 034F-034F 061C-061C 115F-1160 1680-1680 17B4-17B5 180B-180F 2000-200F"
    " 2028-202F 205F-206F 2800-2800 3000-3000 3164-3164 FE00-FE0F FEFF-FEFF FFA0-FFA0 FFF0-FFFB"
    " 1BCA0-1BCA3 1D173-1D17A E0001-E0001 E0020-E007F E0100-E01EF"
)
_HEAD = 200  # characters that are looked at first: nearly every text shows something there


def shows_something(text: sql.Composable, encoding: str) -> sql.Composable:
    """Whether `text`, whose collation is C, has a visible character, in a database of that encoding."""
    # Hardly any text begins otherwise than with a visible ASCII character, and to see that costs next to
    # nothing.
    pattern = "({0} BETWEEN '!' AND '~' OR ltrim(left({0}, {1}), {2}) <> '' OR ltrim({0}, {2}) <> '')"
    return sql.SQL(pattern).format(text, sql.Literal(_HEAD), _literal(encoding))


@cache
def _literal(encoding: str) -> sql.Composable:
    """Every character that shows nothing, as one literal."""
    return sql.SQL("E'" + "".join(map(_escaped, _invisible(encoding))) + "'")


def _invisible(encoding: str) -> list[str]:
    runs = (run.split("-") for run in _RUNS.split())
    characters = [chr(code) for first, last in runs for code in range(int(first, 16), int(last, 16) + 1)]
    return [character for character in characters if _exists(character, encoding)]


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


def _exists(character: str, encoding: str) -> bool:
    """Whether a database of that encoding can hold the character at all."""
    if encoding == "UTF8" or character < "\x80":
        return True
    try:
        character.encode(encoding.replace("WIN", "cp").replace("KOI8", "KOI8_"))  # Python's names
    except (LookupError, UnicodeEncodeError):
        return False
    return True
