"""Signals during work that must be undone: raised at once, then only where it can stop."""

import signal

import pytest

from freshvec.cli.interruption import Interruption
from freshvec.errors import FreshvecError

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SIGNALS = pytest.mark.parametrize("number", NUMBERS)


def work(number: signal.Signals, reached: list[str], *, notes: bool, fault: bool = False) -> None:
    """Work that is interrupted, twice where the first signal is only noted."""
    with Interruption("finish", "the work") as interruption:
        if notes:
            interruption.only_note()
            interruption.check()
            signal.raise_signal(number)
        signal.raise_signal(number)
        reached.append("what was under way")
        if fault:
            raise FreshvecError("run", "initdb", "it ended")
        interruption.check()
        reached.append("the next step")


@SIGNALS
@pytest.mark.parametrize(("notes", "done"), [(False, []), (True, ["what was under way"])])
def test_it_ends_the_work_at_once_or_at_the_next_check_and_says_so(
    number: signal.Signals, notes: bool, done: list[str]
) -> None:
    reached: list[str] = []
    with pytest.raises(FreshvecError, match="cannot finish the work: it was interrupted"):
        work(number, reached, notes=notes)
    assert reached == done


def test_it_is_said_whatever_else_came_of_it() -> None:
    with pytest.raises(FreshvecError, match="it was interrupted"):
        work(signal.SIGINT, [], notes=True, fault=True)


def test_afterwards_signals_do_what_they_did() -> None:
    before = [signal.getsignal(number) for number in NUMBERS]
    with Interruption("finish", "the work"):
        pass
    assert [signal.getsignal(number) for number in NUMBERS] == before
