"""Workers that share a sync, as a model: nothing is lost when shards change hands; each rule is needed."""

from pathlib import Path

import pytest

from tests.spin import holds, is_broken, variants
from tests.support import REPOSITORY

MODEL = REPOSITORY / "daemon/freshvec/worker/shares.pml"
BROKEN = {
    "CHECK": "-DENDS=1 -DGIVEN=0",
    "LOCK": "-DENDS=1 -DGIVEN=0",
    "OTHERS": "-DENDS=1 -DGIVEN=0",
    "ELSEWHERE": "-DENDS=1 -DGIVEN=0",
    "BEFORE": "-DENDS=1 -DGIVEN=0",
    "ENDED": "-DENDS=0 -DGIVEN=1",
    "UNLOCK": "-DENDS=0 -DGIVEN=1",
}


@pytest.mark.parametrize(
    "bounds", ["-DENDS=1 -DGIVEN=0", "-DENDS=0 -DGIVEN=2", "-DENDS=2 -DGIVEN=1 -DCHANGES=1"]
)
def test_nothing_is_lost_and_nobody_is_cut_off_who_has_a_session(tmp_path: Path, bounds: str) -> None:
    assert holds(tmp_path, MODEL, *bounds.split())


@pytest.mark.parametrize("rule", BROKEN)
def test_each_rule_is_needed(tmp_path: Path, rule: str) -> None:
    assert is_broken(tmp_path, MODEL, *BROKEN[rule].split(), f"-DBROKEN_{rule}")


def test_every_variant_is_tried() -> None:
    assert variants(MODEL) == set(BROKEN)
