"""The bell's model, checked by spin: no change is missed, and each rule of it is needed."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import REPOSITORY

MODEL = REPOSITORY / "daemon/freshvec/capture/bell.pml"
BROKEN = ("TAKE", "NOREAD", "LISTEN", "EARLY", "CLEAR", "KEPT")


def check(folder: Path, *defines: str) -> str:
    """What the checker says of the model, with these variants of it chosen."""
    if shutil.which("spin") is None:
        pytest.fail("the bell's model needs spin: `apt-get install spin`")
    subprocess.run(["spin", *defines, "-a", MODEL], cwd=folder, check=True, capture_output=True)
    subprocess.run(["cc", "-O1", "-o", "pan", "pan.c"], cwd=folder, check=True, capture_output=True)
    checked = subprocess.run(["./pan", "-a", "-m1000000"], cwd=folder, check=True, capture_output=True)
    return checked.stdout.decode()


def test_no_change_is_missed(tmp_path: Path) -> None:
    said = check(tmp_path, "-DNW=2")
    assert "errors: 0" in said
    assert "max search depth too small" not in said


@pytest.mark.parametrize("rule", BROKEN)
def test_each_rule_is_needed(tmp_path: Path, rule: str) -> None:
    assert "errors: 1" in check(tmp_path, "-DNW=2", f"-DBROKEN_{rule}")


def test_every_variant_is_tried() -> None:
    assert {word for word in MODEL.read_text().split() if word.startswith("BROKEN_")} == {
        f"BROKEN_{rule}" for rule in BROKEN
    }
