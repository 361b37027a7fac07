"""Models of the protocols between processes, checked by spin in every state they can come to."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest


def check(folder: Path, model: Path, *defines: str) -> str:
    """What the checker says of the model, with these variants and bounds of it chosen."""
    if shutil.which("spin") is None:
        pytest.fail(f"{model.name} is checked by spin: `apt-get install spin`")
    make = ["cc", "-O1", "-DSAFETY", "-w", "-o", "pan", "pan.c"]
    subprocess.run(["spin", *defines, "-a", model], cwd=folder, check=True, capture_output=True)
    subprocess.run(make, cwd=folder, check=True, capture_output=True)
    checked = subprocess.run(["./pan", "-m1000000"], cwd=folder, check=True, capture_output=True)
    return checked.stdout.decode()


def holds(folder: Path, model: Path, *defines: str) -> bool:
    """Whether the model's property holds in all states; False where one was found in which it does not."""
    said = check(folder, model, *defines)
    assert "max search depth too small" not in said
    errors: list[str] = re.findall(r"errors: (\d+)", said)
    return errors == ["0"]


def variants(*models: Path) -> set[str]:
    """The rules that these can be checked without."""
    return {rule for model in models for rule in re.findall(r"BROKEN_(\w+)", model.read_text())}
