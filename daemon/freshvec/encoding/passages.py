"""Cutting a text into passages that a model reads whole, at places that an edit elsewhere does not move.

A cut falls between paragraphs where it can, else between sentences, else words. Which of many such places are
taken is decided by a hash of what stands there, highest first, as in a treap: so whether a place is a cut
depends on its own surroundings alone, and an edit changes the passages around it and no others. Filling one
passage after the other would move every later cut. (Content-defined chunking, as in LBFS: Muthitacharoen,
Chen and Mazières, 2001; treaps: Seidel and Aragon, 1996.)
"""

import hashlib
import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from unicodedata import combining

# Spans of characters, as [begin, end) of Python's strings: Unicode code points, as Postgres counts them.
Span = tuple[int, int]
Count = Callable[[list[str]], list[int]]  # tokens of each text, special tokens apart; `limit` + 1 or more


_PARAGRAPH, _LINE, _SENTENCE, _WORD, _LETTER = 4, 3, 2, 1, 0
_BREAKS = re.compile(
    r"(?P<paragraph>\n[^\S\n]*\n\s*)"
    r"|(?P<line>\n\s*)"
    # The end of a sentence, with the quotes and brackets that close it; where no space follows, only the
    # marks of scripts that are written without spaces. A run of marks is looked at from its first one alone:
    # from each of them, a long one would take the square of its length.
    r"|(?P<sentence>(?<![.!?…؟।])[.!?…؟।]++[\"'”’»)\]]*+\s+|[。！？]+[」』”’）]*\s*)"
)
_LEVELS = {"paragraph": _PARAGRAPH, "line": _LINE, "sentence": _SENTENCE}
_WORDS = re.compile(r"\S+\s*|\s+")
_HASHED = 16  # characters at a place that decide about it
_JOINERS = "\u200c\u200d\ufe0e\ufe0f"  # and variation selectors: they belong to the letter before them


@dataclass(frozen=True)
class _Unit:
    """A sentence, a word or less: it is never cut. `level`: what kind of place its beginning is."""

    begin: int
    end: int
    level: int
    tokens: int


def split(text: str, count: Count, limit: int, overlap: int = 0) -> list[Span]:
    """The passages of a text in its order, of at most `limit` tokens each, without white space at their ends.

    Each but the first begins with up to `overlap` tokens, whole words, of what stands before it. Raises
    ValueError where the limit leaves no room beside the overlap.
    """
    room = limit - overlap
    if room < 1:
        raise ValueError(f"{limit} tokens leave no room beside an overlap of {overlap}")
    units = _units(text, count, room)
    spans = [_trimmed(text, units[run[0]].begin, units[run[1] - 1].end) for run in _runs(text, units, room)]
    spans = [span for span in spans if span[0] < span[1]]
    return _lapped(text, spans, count, overlap) if overlap else spans


def _units(text: str, count: Count, room: int) -> list[_Unit]:
    """The text in sentences; those that are too long in words, and words in pieces."""
    sentences = _pieces(text)
    counted = count([text[begin:end] for begin, end, _ in sentences])
    units: list[_Unit] = []
    for (begin, end, level), tokens in zip(sentences, counted, strict=True):
        if tokens <= room:
            units.append(_Unit(begin, end, level, tokens))
            continue
        words = [(begin + found.start(), begin + found.end()) for found in _WORDS.finditer(text[begin:end])]
        of_words = count([text[first:last] for first, last in words])
        for place, ((first, last), its) in enumerate(zip(words, of_words, strict=True)):
            kind = _WORD if place else level
            units += (
                [_Unit(first, last, kind, its)]
                if its <= room
                else _letters(text, first, last, kind, count, room)
            )
    return units


def _pieces(text: str) -> list[tuple[int, int, int]]:
    """Sentences with the white space after them, and the kind of place each begins at."""
    pieces, begin, level = [], 0, _PARAGRAPH
    for found in _BREAKS.finditer(text):
        if found.end() < len(text):
            pieces.append((begin, found.end(), level))
            begin, level = found.end(), _LEVELS[found.lastgroup or "sentence"]
    return [*pieces, (begin, len(text), level)]


def _letters(text: str, begin: int, end: int, level: int, count: Count, room: int) -> list[_Unit]:
    """A word that is too long, in pieces that are not: halved, and what is still too long halved again."""
    done: dict[Span, int] = {}
    spans = [(begin, end)]
    while spans:
        longer: list[Span] = []
        for span, tokens in zip(spans, count([text[first:last] for first, last in spans]), strict=True):
            if tokens > room and span[1] - span[0] > 1:
                longer += _halves(text, *span)
            else:
                done[span] = tokens
        spans = longer
    return [
        _Unit(first, last, _LETTER if first > begin else level, tokens)
        for (first, last), tokens in sorted(done.items())
    ]


def _halves(text: str, begin: int, end: int) -> tuple[Span, Span]:
    """Two parts that are about as long, cut between letters; within one only where there is but one.

    What one letter combines has no bound, so one may be longer than a model reads.
    """
    middle = (begin + end) // 2
    before = next((place for place in range(middle, begin, -1) if _begins_letter(text, place)), None)
    after = before or next((place for place in range(middle, end) if _begins_letter(text, place)), middle)
    return (begin, after), (after, end)


def _begins_letter(text: str, place: int) -> bool:
    """Whether what stands there does not combine with what stands before it."""
    return not (combining(text[place]) or text[place] in _JOINERS or text[place - 1] == "\u200d")


def _runs(text: str, units: list[_Unit], room: int) -> list[tuple[int, int]]:
    """Runs of units, as [first, last), that become a passage each."""
    before = [0, *accumulate(unit.tokens for unit in units)]
    weights = [(unit.level, _weight(text, unit.begin)) for unit in units]
    runs: list[tuple[int, int]] = []
    waiting = [(0, len(units))]
    while waiting:
        first, last = waiting.pop()
        tokens = before[last] - before[first]
        if tokens <= room or last - first == 1:
            runs.append((first, last))
            continue
        if tokens <= 2 * room:
            cut = _halving(before, weights, first, last, room)
        else:
            cut = _best(weights, range(first + 1, last))
        waiting += [(cut, last), (first, cut)]
    return runs


def _halving(before: list[int], weights: list[tuple[int, int]], first: int, last: int, room: int) -> int:
    """Where a run that makes two passages is cut: at the best place that leaves both of them short enough."""
    least = max(first + 1, bisect_right(before, before[last] - room - 1, first + 1, last))
    most = min(last - 1, bisect_right(before, before[first] + room, first + 1, last) - 1)
    return _best(weights, range(least, most + 1) or range(first + 1, last))


def _best(weights: list[tuple[int, int]], places: range) -> int:
    """The place of most weight: where a text repeats itself, the one with as many such before it as after.

    At the first of them each word would become a passage of its own, and the work grow with the square.
    """
    most = max(weights[place] for place in places)
    same = [place for place in places if weights[place] == most]
    return same[len(same) // 2]


def _weight(text: str, place: int) -> int:
    beginning = text[place : place + _HASHED].encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(beginning, digest_size=8).digest(), "big")


def _trimmed(text: str, begin: int, end: int) -> Span:
    """The span without the white space at its ends."""
    inner = text[begin:end]
    return begin + len(inner) - len(inner.lstrip()), end - len(inner) + len(inner.rstrip())


def _lapped(text: str, spans: list[Span], count: Count, overlap: int) -> list[Span]:
    """The spans, each from up to so many tokens before its own beginning."""
    words = [
        [found.span() for found in _WORDS.finditer(text, before[0], before[1])][-overlap:]
        for before in spans[:-1]
    ]
    counted = iter(count([text[begin:end] for its in words for begin, end in its]))
    lapped = spans[:1]
    for (begin, end), its in zip(spans[1:], words, strict=True):
        tokens = [next(counted) for _ in its]
        left = overlap
        for (first, _), more in zip(reversed(its), reversed(tokens), strict=True):
            if more > left:
                break
            left, begin = left - more, first
        lapped.append((begin, end))
    return lapped
