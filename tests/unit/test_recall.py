"""Recall, from lists of what was found."""

from freshvec.target.recall import Lists, compare


def keys(*numbers: int) -> list[tuple[str, ...]]:
    return [(str(number),) for number in numbers]


def test_the_overlap_is_what_the_new_one_finds_of_the_old() -> None:
    old, new = Lists([keys(1, 2, 3, 4), keys(5, 6)], None), Lists([keys(4, 3, 9, 8), keys(6, 5)], None)
    found = compare(old, new, leave_out_first=False)
    assert (found.queries, found.overlap, found.old, found.new) == (2, 0.75, None, None)


def test_a_row_that_finds_itself_in_both_says_nothing() -> None:
    old, new = Lists([keys(7, 1, 2)], None), Lists([keys(7, 1, 3)], None)
    assert compare(old, new, leave_out_first=True).overlap == 0.5
    assert compare(old, new, leave_out_first=False).overlap == 2 / 3


def test_an_index_is_held_against_all_vectors() -> None:
    old = Lists([keys(*range(10))], [keys(*range(9))])
    new = Lists([keys(*range(10))], [keys(*range(10))])
    found = compare(old, new, leave_out_first=False)
    assert (found.old, found.new) == (0.9, 1.0)


def test_nothing_was_found_by_either() -> None:
    assert compare(Lists([[]], None), Lists([[]], None), leave_out_first=True).overlap == 1.0
