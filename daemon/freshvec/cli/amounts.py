"""Amounts as a person reads them: sizes, shares, durations."""

import math


def memory(used: float, total: float) -> str:
    """A device's memory, given in GB, for a person to read."""
    return f"{used:.1f} of {total:.1f} GB in use"


def size(number: float) -> str:
    """Bytes in the unit a person would use."""
    for unit, one in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= one:
            return f"{number / one:.3g} {unit}"
    return f"{number:.0f} bytes"


def percent(share: float) -> str:
    """A share in percent, never rounded up: 100% is for all."""
    return f"{math.floor(share * 10_000) / 100:.2f}%"


def duration(seconds: float | None) -> str:
    """Seconds in the unit a person would use."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
