"""The bell's model: no change is missed, and each rule of it is needed."""

from pathlib import Path

import pytest

from tests.spin import holds, variants
from tests.support import REPOSITORY

MODEL = REPOSITORY / "daemon/freshvec/capture/bell.pml"
BROKEN = ("TAKE", "NOREAD", "LISTEN", "EARLY", "CLEAR", "KEPT")


def test_no_change_is_missed(tmp_path: Path) -> None:
    assert holds(tmp_path, MODEL, "-DNW=2")


@pytest.mark.parametrize("rule", BROKEN)
def test_each_rule_is_needed(tmp_path: Path, rule: str) -> None:
    assert not holds(tmp_path, MODEL, "-DNW=2", f"-DBROKEN_{rule}")


def test_every_variant_is_tried() -> None:
    assert variants(MODEL) == set(BROKEN)
