"""Batches by padded tokens: nothing lost, nothing twice, within the budget, little padding."""

from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshvec.encoding.batching import Batch, flat, padded, padding_waste, plan_batches
from freshvec.encoding.tokenizer import Tokenizer
from freshvec.records import Tokens
from freshvec.stdlib_texts import docstrings
from tests.support import MODEL

LENGTHS = st.lists(st.integers(1, 600), max_size=200)


@given(LENGTHS, st.integers(1, 5000), st.integers(1, 60))
def test_every_text_is_in_exactly_one_batch(lengths: list[int], size: int, max_rows: int) -> None:
    batches = plan_batches(lengths, lambda: size, max_rows)
    assert sorted(index for batch in batches for index in batch.indices) == list(range(len(lengths)))


@given(LENGTHS, st.lists(st.integers(1, 5000), min_size=1, max_size=5), st.integers(1, 60))
def test_a_batch_keeps_the_budget_it_was_given_unless_it_is_a_single_text(
    lengths: list[int], sizes: list[int], max_rows: int
) -> None:
    given_out: list[int] = []

    def next_size() -> int:
        given_out.append(sizes[len(given_out) % len(sizes)])
        return given_out[-1]

    batches = plan_batches(lengths, next_size, max_rows)
    assert [batch.size for batch in batches] == given_out
    for batch in batches:
        assert len(batch.indices) <= max_rows
        assert (
            len(batch.indices) == 1
            or max(lengths[i] for i in batch.indices) * len(batch.indices) <= batch.size
        )


@given(LENGTHS, st.integers(1, 5000))
def test_the_longest_come_first(lengths: list[int], size: int) -> None:
    order = [lengths[index] for batch in plan_batches(lengths, lambda: size) for index in batch.indices]
    assert order == sorted(lengths, reverse=True)


def test_equal_lengths_fill_their_batches() -> None:
    batches = plan_batches([10] * 25, lambda: 100)
    assert [len(batch.indices) for batch in batches] == [10, 10, 5]


def test_a_well_filled_batch_ends_before_shorter_texts() -> None:
    batches = plan_batches([100] * 4 + [93] * 3, lambda: 1000)
    assert [len(batch.indices) for batch in batches] == [4, 3]
    assert len(plan_batches([100] * 4 + [95] * 3, lambda: 1000)) == 1, (
        "so little padding is cheaper than another batch"
    )
    batches = plan_batches([100] * 3 + [93] * 3, lambda: 1000)
    assert [len(batch.indices) for batch in batches] == [4, 2], "three of ten are too few to send off alone"


@pytest.mark.parametrize("size", [512, 1024])
def test_real_texts_waste_at_most_three_per_cent(models_dir: Path, size: int) -> None:
    tokenizer = Tokenizer(models_dir / MODEL / "tokenizer.json", 256)
    bodies = [body for _, body in islice(docstrings(), 4000)][::4]
    for texts in (bodies[:1000], [body.strip().split("\n", 1)[0] for body in bodies][:1000]):
        lengths = [len(text) for text in tokenizer.encode(texts)]
        assert padding_waste(lengths, plan_batches(lengths, lambda: size)) <= 0.03


@given(LENGTHS.filter(bool), st.integers(1, 5000))
def test_waste_is_the_share_of_padding_among_what_is_computed(lengths: list[int], size: int) -> None:
    batches = plan_batches(lengths, lambda: size)
    real = computed = 0
    for batch in batches:
        ids, mask = padded([Tokens(np.ones(lengths[i], dtype=np.int64)) for i in batch.indices], pad_id=0)
        real += int(mask.sum())
        computed += ids.size
    assert real == sum(lengths)
    assert padding_waste(lengths, batches) == pytest.approx((computed - real) / computed)


def test_waste_of_known_batches() -> None:
    assert padding_waste([4, 2], [Batch([0, 1], 8)]) == pytest.approx(0.25)
    assert padding_waste([4, 2], [Batch([0], 8), Batch([1], 8)]) == 0
    assert padding_waste([], []) == 0


@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=20), min_size=1, max_size=20),
    st.sampled_from([1, 8, 16]),
)
def test_padding_is_on_the_right_masked_and_rounded_up(texts: list[list[int]], step: int) -> None:
    ids, mask = padded([Tokens(np.array(text, dtype=np.int64)) for text in texts], pad_id=0, step=step)
    longest = max(map(len, texts))
    assert ids.shape == mask.shape == (len(texts), -(-longest // step) * step)
    for row, text in enumerate(texts):
        padding = [0] * (ids.shape[1] - len(text))
        assert ids[row].tolist() == text + padding
        assert mask[row].tolist() == [1] * len(text) + padding


def test_places_of_packed_tokens_are_as_the_kernels_want_them() -> None:
    """The example in ONNX Runtime's bert_padding.cu."""
    made = flat([Tokens(np.arange(length, dtype=np.int64)) for length in (1, 2, 4)])
    assert made["token_offset"].tolist() == [[0, 4, 5, 8], [9, 10, 11, 1], [2, 3, 6, 7]]
    assert made["cumulative_sequence_length"].tolist() == [0, 1, 3, 7]


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=20), min_size=1, max_size=20))
def test_packed_tokens_are_those_of_the_padded_batch(texts: list[list[int]]) -> None:
    batch = [Tokens(np.array(text, dtype=np.int64)) for text in texts]
    made, (ids, mask) = flat(batch), padded(batch, pad_id=0)
    offset, ends = made["token_offset"], made["cumulative_sequence_length"]
    assert made["attention_mask"].tolist() == (mask == 1).tolist()
    assert offset.shape == mask.shape
    assert sorted(offset.ravel()) == list(range(mask.size))
    real, rest = np.split(offset.ravel(), [ends[-1]])
    assert made["input_ids"].tolist() == [ids.ravel()[real].tolist()]
    assert made["position_ids"].tolist() == [(real % mask.shape[1]).tolist()]
    assert not mask.ravel()[rest].any()
    assert rest.tolist() == sorted(rest)
    for text, start, end in zip(texts, ends, ends[1:], strict=False):
        assert made["input_ids"][0, start:end].tolist() == text
    kinds = {name: values.dtype for name, values in made.items()}
    assert kinds.pop("attention_mask") == np.bool_
    assert set(kinds.values()) == {np.dtype(np.int32)}


def test_the_plan_of_a_page_is_in_descending_batches() -> None:
    batches = plan_batches([5, 300, 7, 290, 6], lambda: 600)
    longest = [max([5, 300, 7, 290, 6][i] for i in batch.indices) for batch in batches]
    assert all(before >= after for before, after in pairwise(longest))
    assert batches[0].indices == [1, 3]
