"""A swap under hot rows and kills: nothing is wrong at rest, and who searches gets answers all the while."""

from tests.acceptance.swap_hammer import swapped


def test_nothing_is_wrong_and_searches_answer(url: str) -> None:
    run = swapped(url, seed=1)
    assert run.wrong == [], run.told()
    assert [step for step, *_ in run.steps] == ["--yes", "--commit", "--rollback", "--commit"]
    # Writers, workers and commands that start leave little of the machine to who searches. That no search
    # ever waits for the swap itself is proved statement by statement:
    # tests/integration/test_swap_searches.py.
    assert run.got.longest() < 2000, run.told()
