"""A swap under hot rows and kills: nothing is wrong at rest, and who searches gets answers all the while."""

from tests.acceptance.swap_hammer import swapped


def test_nothing_is_wrong_and_searches_answer(url: str) -> None:
    run = swapped(url, seed=1)
    assert run.wrong == [], run.told()
    assert [step for step, *_ in run.steps] == ["--yes", "--commit", "--rollback", "--commit"]
    for step, *when in run.steps:  # a busy machine lets everybody wait, as it does the client beside it
        assert run.got.longest(*when) < max(50.0, 2 * run.still.longest()), (step, run.told())
