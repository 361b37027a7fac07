"""What the tests of faults share."""

from collections.abc import Iterator

import pytest
from loguru import logger


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What is logged, a line each, its level first."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="INFO", format="{level} {message}")
    yield lines
    logger.remove(sink)
