"""Which columns of text are worth embedding: prose, and neither codes nor secrets."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_SECRET = re.compile(
    r"passw|secret|token|api_?key|hash|salt|credential|iban|ssn|card_?number|session", re.IGNORECASE
)
_CODE = re.compile(
    r"(^|_)(e?mail|phone|fax|url|uri|link|path|file|slug|status|state|type|kind|lang|language|locale|"
    r"currency|country|zip|postcode|uuid|guid|sku|ip|host|user_?agent|mime|checksum|etag|color|colour|"
    r"timezone)s?$",
    re.IGNORECASE,
)
_HEADING = re.compile(
    r"(^|_)(title|name|subject|headline|heading|summary|question|caption|label)$", re.IGNORECASE
)
_SHORT = 20  # characters on average, below which a text says little
_PROSE = 40  # characters on average from which a text is prose


@dataclass(frozen=True)
class Column:
    """A column of text, judged by sampled values: shares of 1, and characters on average.

    `is_prose`: it is worth embedding. `reason` says why not.
    """

    name: str
    type: str
    filled: float
    distinct: float
    characters: float
    ascii: float
    is_prose: bool
    is_heading: bool
    reason: str = ""


def judged(name: str, kind: str, values: Sequence[str | None]) -> Column:
    """What its sampled values say of a column."""
    texts = [value for value in values if value and value.strip()]
    count = max(len(texts), 1)
    characters = sum(map(len, texts)) / count
    distinct = len(set(texts)) / count
    visible = max(sum(map(len, texts)), 1)
    plain = sum(sum(letter < "\x80" for letter in text) for text in texts) / visible
    reason = _reason(name, texts, characters, distinct)
    is_heading = bool(_HEADING.search(name)) and not _SECRET.search(name)
    return Column(
        name=name,
        type=kind,
        filled=len(texts) / max(len(values), 1),
        distinct=distinct,
        characters=characters,
        ascii=plain,
        is_prose=not reason and characters >= _PROSE,
        is_heading=is_heading and not reason,
        reason=reason or ("" if characters >= _PROSE or is_heading else "short texts"),
    )


def chosen(columns: Sequence[Column]) -> tuple[str, ...]:
    """The columns to embed together: the prose, and headings beside it; of headings alone, those."""
    prose = [column for column in columns if column.is_prose]
    together = [column.name for column in columns if column.is_prose or column.is_heading]
    has_texts = prose or any(column.is_heading and column.characters >= _SHORT for column in columns)
    return tuple(together) if has_texts else ()


def _reason(name: str, texts: Sequence[str], characters: float, distinct: float) -> str:
    """Why a column is not worth embedding, "" where it is."""
    if not texts:
        return "empty"
    if _SECRET.search(name):
        return "its name says it is secret"
    if _CODE.search(name):
        return "its name says it is a code or an address"
    if len(texts) >= 20 and distinct < 0.2:
        return f"{distinct:.0%} of its values are distinct"
    words = sum(_has_words(text) for text in texts) / len(texts)
    if words < 0.5 and not _HEADING.search(name):
        return "codes or single words"
    return ""


def _has_words(text: str) -> bool:
    """Whether a text has several words, or is written without spaces between them."""
    return len(text.split()) > 1 or (len(text) > 5 and not text.isascii())
