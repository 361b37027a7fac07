"""How long changes waited, in buckets."""

from freshvec.pipeline.lags import BOUNDS, Lags
from freshvec.pipeline.progress import Progress


def test_each_lag_is_in_the_bucket_of_the_least_bound_it_does_not_exceed() -> None:
    lags = Lags()
    assert not lags
    lags.add([0.0005, 0.001, 0.0011, 0.004, 1.0, 5000.0, -0.001])
    filled = {place: count for place, count in enumerate(lags.counts) if count}
    assert filled == {0: 3, 1: 1, 2: 1, 10: 1, len(BOUNDS): 1}
    assert lags.longest_ms == 5_000_000
    assert round(lags.total_ms) == 5_001_007


def test_what_is_taken_is_taken_once_and_may_be_given_back() -> None:
    progress = Progress()
    progress.wrote([], [0.002, 0.002])
    taken = progress.take_lags()
    assert not progress.take_lags()
    progress.wrote([], [0.1])
    progress.give_back(taken)
    again = progress.take_lags()
    assert (sum(again.counts), again.counts[1], again.longest_ms) == (3, 2, 100)
