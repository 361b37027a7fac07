"""Cutting texts into passages: nothing is lost, nothing is too long, and an edit moves little."""

import random
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from freshvec.encoding.passages import split
from tests.passages import count, prose, words_of

LIMITS = st.integers(1, 40)
TEXTS = st.text(
    st.one_of(st.characters(), st.sampled_from(" \n\n.!?。”a\u0301\u200d\U0001f469")), max_size=400
)


def letters(texts: list[str]) -> list[int]:
    """A tokenizer of letters: as many tokens as bytes."""
    return [len(text.encode("utf-8", "surrogatepass")) for text in texts]


@given(TEXTS, LIMITS, st.integers(0, 10))
@example("a" * 500, 7, 3)
@example("\n\n \n", 5, 0)
def test_nothing_is_lost_and_nothing_is_too_long(text: str, limit: int, overlap: int) -> None:
    overlap = min(overlap, limit // 2)
    spans = split(text, count, limit, overlap)
    covered = {place for begin, end in spans for place in range(begin, end)}
    assert {place for place, letter in enumerate(text) if not letter.isspace()} <= covered
    assert all(begin < end and text[begin:end].strip() == text[begin:end] for begin, end in spans)
    assert spans == sorted(spans)
    assert [end for _, end in spans] == sorted({end for _, end in spans})
    assert all(tokens <= limit for tokens in count([text[begin:end] for begin, end in spans]))
    assert split(text, count, limit, overlap) == spans, "the same each time"


@given(TEXTS, st.integers(4, 40))
@example("\U0001f469\u200d", 4)
@example("a\u0301\u0301", 4)
@example("a" + "\u0301" * 600, 510)
@example("\u200d".join("漢" * 300), 254)
@example("\u200d".join("!" * 300), 254)
@example("b" * 40 + "a" + "\u0301" * 600 + "c" * 40, 16)
def test_the_longest_words_are_cut_between_letters(text: str, limit: int) -> None:
    spans = split(text, letters, limit)
    assert all(size <= limit for size in letters([text[begin:end] for begin, end in spans]))


def test_a_letter_stays_with_what_combines_with_it() -> None:
    text = "e\u0301" * 60 + "\U0001f469\u200d\U0001f52c" * 20
    begins = [begin for begin, _ in split(text, letters, 17)]
    assert {text[begin] for begin in begins} <= {"e", "\U0001f469"}


def test_a_letter_that_is_too_long_is_cut_and_those_beside_it_are_not() -> None:
    long = "a" + "\u0301" * 600
    text = "e\u0301" * 60 + long + "e\u0301" * 60
    begins = [begin for begin, _ in split(text, letters, 17)]
    assert {text[begin] for begin in begins if not 120 < begin < 120 + len(long)} == {"e", "a"}
    assert len([begin for begin in begins if 120 < begin < 120 + len(long)]) < 200, "in few pieces"


@pytest.mark.parametrize("marks", [".", "!", '."', "?!", ".\u201d", "\n ", ". "])
def test_a_long_run_of_marks_costs_no_more_than_its_length(marks: str) -> None:
    """Dots lead to a page's number; from each of them the run's end was looked for, for minutes in all."""
    text = marks * (400_000 // len(marks)) + "x"
    spans = split(text, lambda texts: [len(text) // 1000 + 1 for text in texts], 200)
    assert spans[-1][1] == len(text)


def test_a_text_that_repeats_itself_is_cut_into_equal_passages() -> None:
    """All of its places weigh the same; with the first of them each word would become a passage."""
    text = "word " * 20_000
    sizes = count([text[begin:end] for begin, end in split(text, count, 200)])
    assert max(sizes) <= 200
    assert min(sizes[:-5]) >= 99, "but for the text's last words, beside which there are no others"


@given(TEXTS, LIMITS, st.integers(1, 10))
def test_the_overlap_is_as_long_as_asked_for_at_most(text: str, limit: int, overlap: int) -> None:
    overlap = min(overlap, limit // 2)
    spans = split(text, count, limit, overlap)
    for (_, end), (begin, _) in pairwise(spans):
        if begin < end:
            assert count([text[begin:end]])[0] <= overlap


def test_a_short_text_is_one_passage() -> None:
    assert split("  Some text. Of two sentences.\n", count, 50) == [(2, 30)]
    assert split(" \n ", count, 50) == []


def test_no_room_beside_the_overlap_is_refused() -> None:
    with pytest.raises(ValueError, match="5 tokens leave no room beside an overlap of 5"):
        split("text", count, 5, 5)


def test_paragraphs_are_kept_whole_where_they_fit() -> None:
    paragraphs = [" ".join(["word"] * 30) + "." for _ in range(9)]
    text = "\n\n".join(paragraphs)
    cut = [text[begin:end] for begin, end in split(text, count, 70)]
    assert all(passage.startswith("word") and passage.endswith(".") for passage in cut)
    assert all(set(passage.split("\n\n")) <= set(paragraphs) for passage in cut)


@pytest.mark.parametrize("overlap", [0, 30])
def test_an_edit_of_a_paragraph_moves_few_passages(overlap: int) -> None:
    """Of a text of about 50 passages: three at most, but for one edit in twenty."""
    chance, moved, sizes = random.Random(1), [], []
    for seed in range(60):
        text = prose(150, seed)
        spans = split(text, count, 200, overlap)
        sizes += count([text[begin:end] for begin, end in spans])
        before = {text[begin:end] for begin, end in spans}
        paragraphs = text.split("\n\n")
        edited = chance.randrange(len(paragraphs))
        words = paragraphs[edited].split(" ")
        words[chance.randrange(len(words))] = "changed"
        paragraphs[edited] = " ".join([*words, "And more."] if seed % 2 else words)
        text = "\n\n".join(paragraphs)
        moved.append(len({text[begin:end] for begin, end in split(text, count, 200, overlap)} - before))
    assert len([each for each in moved if each > 3]) <= len(moved) // 20, sorted(moved)
    assert sum(sizes) / len(sizes) > 0.6 * 200, "passages are filled"


def test_the_words_of_these_tests() -> None:
    assert words_of("Don't stop.") == ["Don", "'", "t", "stop", "."]
