"""Numbers that options take."""

import pytest
import typer
from typer.testing import CliRunner

from freshvec.cli import main, numbers
from freshvec.cli.app import app


@pytest.mark.parametrize("given", ["nan", "-nan", "inf", "-1", "1e10", "five", "", "0x1"])
@pytest.mark.parametrize("kind", [numbers.seconds, numbers.days, numbers.share])
def test_what_nobody_could_wait_for_is_refused(kind: object, given: str) -> None:
    assert callable(kind)
    with pytest.raises(typer.BadParameter, match=r"is no (number of \w+|share of rows) from 0 to [\d,]+$"):
        kind(given)


def test_what_is_within_is_taken_as_it_is() -> None:
    assert numbers.seconds("0") == 0
    assert numbers.seconds("2.5") == 2.5
    assert numbers.days(7.0) == 7
    assert numbers.share("0.999") == 0.999


@pytest.mark.parametrize(
    "given", [("search", "text", "-n"), ("verify", "--vectors"), ("swap", "docs", "--sample")]
)
def test_no_more_rows_are_asked_for_than_a_command_could_hold(given: tuple[str, ...]) -> None:
    """Postgres takes no more than a bigint."""
    assert callable(main.main)
    done = CliRunner().invoke(app, [*given, str(2**63)])
    assert done.exit_code == 2
    assert "1000000" in done.output


def test_every_option_that_takes_such_a_number_asks_for_a_finite_one() -> None:
    assert callable(main.main)  # whose import brings every command
    finite = {numbers.seconds, numbers.days, numbers.share}
    commands = vars(typer.main.get_command(app))["commands"]
    taken = [vars(option)["type_descriptor"] for command in commands.values() for option in command.params]
    asked = [option.parameter_info.parser for option in taken if "float" in str(option.annotation)]
    assert len(asked) >= 6
    assert finite.issuperset(asked)
