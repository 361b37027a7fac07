"""The real tokenizer: no padding, cut at the model's limit; a long text, or a pool, gives the same tokens."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HuggingFaceTokenizer

from freshvec.encoding.tokenizer import Tokenizer
from tests.support import MODEL

LIMIT = 32
# "word" is one token; [CLS] and [SEP] are always there.
EXACT = "word " * (LIMIT - 2)
ODD = st.sampled_from(
    [
        "🎉",
        "👩‍👩‍👧‍👦",
        "\x00",
        "\x01",
        "\x7f",
        "\u200b",
        "\u202e",
        "é",
        "e\u0301",
        "ß",
        "漢",
        "\ufffd",
        "\U0010ffff",
    ]
)
TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    st.text(st.characters(categories=["So"]), max_size=300),
    st.text(st.characters(categories=["Cc", "Cf"]), max_size=300),
    st.lists(ODD, max_size=300).map("".join),
)


@pytest.fixture(scope="module")
def path(models_dir: Path) -> Path:
    return models_dir / MODEL / "tokenizer.json"


@pytest.fixture(scope="module")
def ours(path: Path) -> Tokenizer:
    return Tokenizer(path, LIMIT)


@pytest.fixture(scope="module")
def plain(path: Path) -> HuggingFaceTokenizer:
    """What the library alone does with the whole text."""
    tokenizer = HuggingFaceTokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LIMIT)
    return tokenizer


def same(ours: Tokenizer, plain: HuggingFaceTokenizer, text: str) -> None:
    (found,) = ours.encode([text])
    wanted = plain.encode(text)
    assert found.ids.tolist() == wanted.ids
    assert found.truncated == bool(wanted.overflowing)


def test_texts_are_neither_padded_nor_reordered(ours: Tokenizer) -> None:
    assert [len(tokens) for tokens in ours.encode(["word word word", "", "word"])] == [5, 2, 3]
    assert ours.encode([]) == []


@pytest.mark.parametrize(
    ("text", "truncated"), [(EXACT.strip(), False), (EXACT, False), (EXACT + "word", True)]
)
def test_the_limit_is_exact(ours: Tokenizer, text: str, truncated: bool) -> None:
    (tokens,) = ours.encode([text])
    assert len(tokens) == LIMIT
    assert tokens.truncated is truncated


def test_one_token_under_the_limit(ours: Tokenizer) -> None:
    (tokens,) = ours.encode(["word " * (LIMIT - 3)])
    assert (len(tokens), tokens.truncated) == (LIMIT - 1, False)


def test_the_prefix_is_part_of_the_text_and_of_the_limit(path: Path) -> None:
    tokenizer = Tokenizer(path, LIMIT, prefix="query: ")
    given_prefix, written = tokenizer.encode(["bread"]), Tokenizer(path, LIMIT).encode(["query: bread"])
    assert given_prefix[0].ids.tolist() == written[0].ids.tolist()
    assert tokenizer.encode([EXACT])[0].truncated


@pytest.mark.parametrize(
    "text",
    [
        "many short words here " * 50_000,
        "word\n" * 200_000,
        "x" * 1_000_000,
        "x" * 1_000_000 + " and words after",
        " " * 1_000_000 + "words after blanks",
        "🎉" * 250_000,
        "漢" * 350_000,
        "\x01" * 1_000_000 + " bread",
        "a" * 5000 + " " + "word " * 200_000,
    ],
    ids=[
        "words",
        "lines",
        "one word",
        "one word and more",
        "blanks first",
        "emoji",
        "ideographs",
        "controls",
        "long word first",
    ],
)
def test_a_megabyte_has_the_tokens_of_the_whole(
    ours: Tokenizer, plain: HuggingFaceTokenizer, text: str
) -> None:
    same(ours, plain, text)


def test_long_texts_among_others_keep_their_order(ours: Tokenizer) -> None:
    blanks = " " * 5000
    texts = ["bread", f"{blanks}one", "word " * 5000, "x" * 5000 + " two", "", "a " * 200 + f"{blanks}b"]
    alone = [ours.encode([text])[0] for text in texts]
    together = ours.encode(texts * 3)
    assert [found.ids.tolist() for found in together] == [found.ids.tolist() for found in alone * 3]
    assert [found.truncated for found in together] == [found.truncated for found in alone * 3]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many characters the library is given, by call."""
    asked: list[int] = []

    class Counting:
        def __init__(self, kept: HuggingFaceTokenizer) -> None:
            self.no_padding, self.enable_truncation = kept.no_padding, kept.enable_truncation
            self._kept = kept

        def encode_batch_fast(self, texts: list[str]) -> Any:
            asked.append(sum(map(len, texts)))
            return self._kept.encode_batch_fast(texts)

    class Library:
        @staticmethod
        def from_file(name: str) -> Counting:
            return Counting(HuggingFaceTokenizer.from_file(name))

    monkeypatch.setattr("freshvec.encoding.tokenizer.HuggingFaceTokenizer", Library)
    return asked


def test_what_a_long_text_s_start_has_enough_of_is_tokenised_once(path: Path, asked: list[int]) -> None:
    """By the library that is chosen: one text in a hundred made a batch take three times as long."""
    Tokenizer(path, LIMIT).encode(["short", "word " * 5000, "long word " * 5000])
    assert len(asked) == 1


def test_a_long_word_that_has_too_few_tokens_is_not_taken_again_alone(path: Path, asked: list[int]) -> None:
    """What is read after it is more: an image in base64 was tokenised once for each power of two."""
    Tokenizer(path, LIMIT).encode(["short", f"{'x' * 100_000} {'y' * 99_000} z"])
    assert sum(asked) < 310_000


@settings(deadline=None, max_examples=150)
@given(TEXT)
def test_odd_characters(ours: Tokenizer, plain: HuggingFaceTokenizer, text: str) -> None:
    same(ours, plain, text)


@settings(deadline=None, max_examples=60)
@given(TEXT, ODD | st.sampled_from(["word ", "x", " ", "\n", "a-b/c "]), st.integers(200, 1200), TEXT)
def test_odd_characters_in_a_long_text(
    ours: Tokenizer, plain: HuggingFaceTokenizer, start: str, unit: str, count: int, end: str
) -> None:
    same(ours, plain, start + unit * count + end)
