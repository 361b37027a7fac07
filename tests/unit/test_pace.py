"""How many rows go into one transaction."""

from hypothesis import given
from hypothesis import strategies as st

from freshvec.pipeline.pace import MOST_ROWS, Pace


@given(st.floats(min_value=1.0, max_value=100_000.0))
def test_transactions_come_to_take_about_a_fifth_of_a_second(rows_a_second: float) -> None:
    pace = Pace()
    for _ in range(30):
        pace.took(pace.rows, pace.rows / rows_a_second)
    assert (
        pace.rows == max(1, min(MOST_ROWS, int(0.2 * rows_a_second)))
        or abs(pace.rows - 0.2 * rows_a_second) <= 1
    )


def test_small_transactions_say_nothing_of_large_ones() -> None:
    pace = Pace()
    for _ in range(20):
        pace.took(pace.rows, 0.01)
    assert pace.rows == MOST_ROWS
    for _ in range(20):
        pace.took(1, 0.005)
    assert pace.rows == MOST_ROWS


def test_an_index_made_meanwhile_is_noticed_at_once() -> None:
    pace = Pace()
    for _ in range(20):
        pace.took(pace.rows, 0.01)
    pace.took(4000, 8.0)
    assert pace.rows == 100
