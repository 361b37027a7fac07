"""Backoff: grows, is jittered, and never goes above its cap."""

from hypothesis import given
from hypothesis import strategies as st

from freshvec.backoff import Backoff


@given(st.floats(0.01, 10), st.floats(0.01, 100), st.integers(0, 2000))
def test_a_delay_is_never_above_the_cap_nor_nothing(first: float, cap: float, attempts: int) -> None:
    backoff = Backoff(first, cap)
    backoff.attempts = attempts
    assert min(first, cap) / 2 <= backoff.next_delay() <= cap


def test_the_ceiling_doubles_until_the_cap() -> None:
    for attempt, ceiling in enumerate([1.0, 2.0, 4.0, 5.0, 5.0]):
        delays = []
        for _ in range(300):
            backoff = Backoff(first=1.0, cap=5.0)
            backoff.attempts = attempt
            delays.append(backoff.next_delay())
        assert ceiling * 0.8 < max(delays) <= ceiling
        assert min(delays) < 0.5 + (ceiling - 0.5) * 0.2, "the delay is spread over its whole range"


def test_every_attempt_counts_until_the_reset() -> None:
    backoff = Backoff(first=1.0, cap=100.0)
    for _ in range(7):
        backoff.next_delay()
    assert backoff.attempts == 7
    backoff.reset()
    assert backoff.attempts == 0
    assert backoff.next_delay() <= 1.0
