"""One row that two workers read at once, as a model: it ends as its text is; each rule is needed."""

from pathlib import Path

import pytest

from tests.spin import holds, is_broken, variants
from tests.support import REPOSITORY

PIPELINE = REPOSITORY / "daemon/freshvec/pipeline"
MODEL = PIPELINE / "readings.pml"
BROKEN = (
    "FENCE",
    "TOUCH",
    "KEEP",
    "CLEAR",
    "OWN",
    "EARLY",
    "LATE",
    "PAGE_CLEARS",
    "PAGE_TOMBSTONE",
    "ORPHANS",
    "ENTRIES",
    "CHECK",
    "FINISH",
    "BEGIN",
    "DISCARD",
)


@pytest.mark.parametrize("bounds", ["-DCHANGES=2 -DPROOFS=0", "-DCHANGES=1 -DPROOFS=1 -DDEATHS=1"])
def test_the_target_ends_as_the_source(tmp_path: Path, bounds: str) -> None:
    assert holds(tmp_path, MODEL, *bounds.split())


@pytest.mark.parametrize("rule", BROKEN)
def test_each_rule_is_needed(tmp_path: Path, rule: str) -> None:
    bounds = ("-DDEATHS=1", "-DCHANGES=1", "-DPROOFS=0") if rule == "CHECK" else ()
    assert is_broken(tmp_path, MODEL, *bounds, f"-DBROKEN_{rule}")


def test_every_variant_is_tried() -> None:
    assert variants(MODEL, PIPELINE / "row.pml") == set(BROKEN)
