"""Numbers that options take: finite ones, which typer's own ranges do not ask for."""

import math

import typer

_MOST_SECONDS = 10**9  # as in the configuration
_MOST_DAYS = 10**4
MOST_ROWS = 10**6  # of those that a command holds in memory


def seconds(given: str | float) -> float:
    """Raises BadParameter for what is no number of seconds that somebody could wait for."""
    return _number(given, _MOST_SECONDS, "number of seconds")


def days(given: str | float) -> float:
    """Raises BadParameter for what is no number of days that something could be kept."""
    return _number(given, _MOST_DAYS, "number of days")


def share(given: str | float) -> float:
    """Raises BadParameter for what is no share."""
    return _number(given, 1, "share of rows")


def _number(given: str | float, most: float, kind: str) -> float:
    try:
        number = float(given)
    except ValueError:
        number = math.nan
    if not 0 <= number <= most:  # which a NaN is neither under nor over
        raise typer.BadParameter(f"{given!r} is no {kind} from 0 to {most:,}")
    return number
