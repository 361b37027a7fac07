"""The bell's model: no change is missed, and each rule of it is needed."""

from pathlib import Path

import pytest

from tests.spin import holds, is_broken, variants
from tests.support import REPOSITORY

MODEL = REPOSITORY / "daemon/freshvec/capture/bell.pml"
BROKEN = dict.fromkeys(("TAKE", "NOREAD", "LISTEN", "EARLY", "CLEAR", "KEPT"), "-DNK=1 -DNW=2")
BROKEN |= dict.fromkeys(("OTHERS", "TELL", "TELL_FIRST", "GONE"), "-DNK=2 -DNW=1")


@pytest.mark.parametrize("bounds", ["-DNK=1 -DNW=2", "-DNK=2 -DNW=1", "-DNK=2 -DNW=2 -DCHANGES=1"])
def test_no_change_is_missed(tmp_path: Path, bounds: str) -> None:
    assert holds(tmp_path, MODEL, *bounds.split())


@pytest.mark.parametrize("rule", BROKEN)
def test_each_rule_is_needed(tmp_path: Path, rule: str) -> None:
    assert is_broken(tmp_path, MODEL, *BROKEN[rule].split(), f"-DBROKEN_{rule}")


def test_every_variant_is_tried() -> None:
    assert variants(MODEL) == set(BROKEN)
